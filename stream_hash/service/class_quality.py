"""Live quality class by class: which classes have changed their look, or are no longer found as they were, since when.

The mean over all classes hardly shows it when one of many drops. So each has a detector of its own (numerics/cusum.py).
Where one alarms, the class counts as begun anew from there: what a model knows of it from before does not count
(newcomers.py). Kept are CLASSES of them, those that came last: some 20 kB of the summary at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stream_hash.errors import IntegrityError
from stream_hash.numerics.cusum import Cusum
from stream_hash.storage.live_quality import Figure

CLASSES: Final = 200
LONGEST_NAME: Final = 100
"""Characters of a class's JSON text; the summary is written at each sweep, and longer names would fill it."""


class ClassQuality:
    """changed : class → the sequence number that its present look begins with."""

    def __init__(self) -> None:
        self.changed: dict[str, int] = {}
        self._detectors: dict[str, Cusum] = {}

    def add(self, figure: Figure) -> str | None:
        """Take a figure up, no older than those before. Returns a sentence if its class has become worse by now."""
        name = figure.label
        if not name or len(name) > LONGEST_NAME:
            return None
        detector = self._detectors.pop(name, None) or Cusum()
        self._detectors[name] = detector  # the last one came last
        before = detector.mean
        since = detector.add(figure.position, figure.precision)
        if since is not None:
            self._detectors[name] = Cusum()
            self.changed.pop(name, None)
            self.changed[name] = since
        for kept in (self._detectors, self.changed):
            while len(kept) > CLASSES:
                del kept[next(iter(kept))]
        return None if since is None else f"class {name} became worse: below {before:.2f} since item {since}"

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON can hold it; `from_dict` is the way back."""
        return {"changed": self.changed, "detectors": {name: one.to_list() for name, one in self._detectors.items()}}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ClassQuality:
        """Raises IntegrityError when the state is not one of `to_dict`."""
        found = cls()
        try:
            found.changed = {str(name): int(since) for name, since in state["changed"].items()}
            found._detectors = {str(name): Cusum.from_list(one) for name, one in state["detectors"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError("the state of classes' figures is not one", why=str(error)) from error
        return found

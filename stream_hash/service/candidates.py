"""The models that may follow the live one: the stored learner, continued, and one learned afresh from the window.

1. The first costs a pass over the new labels and remembers all that came before. But its landmarks, its directions and
   the number of its learned bits stay as they were when it began: what moved away from them it cannot follow.
2. The second knows what is in the window, and nothing else. It is what there is when there is nothing to continue.

So both are made whenever both can be, and the better one on held-out items is taken. Choosing by a measure of drift
would need a threshold; this needs seconds. What the better one learned is what is continued next time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from stream_hash.errors import IntegrityError, StreamHashError, UnlearnableError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.learner_state import LearnerState, identity_text
from stream_hash.service.window import Examples

if TYPE_CHECKING:  # scikit-learn is imported only where training happens
    from stream_hash.numerics.grh import GRH
    from stream_hash.numerics.model import Model
    from stream_hash.numerics.signature import Signature

ONLINE: Final = ("pa", "ridge")
LEARNERS: Final = (*ONLINE, "svm", "mlp")

LANDMARKS: Final = 1_000
"""Of the feature map: GRH's n_components."""

LEAST_SAMPLE: Final = 500
"""Items from which a learned signature is better than the one there is."""


REPEATS: Final = 10
"""How often an item of a rare class is learned, at most. A class that came lately has a twentieth of the labels of one
that is old, and a learner of all errors alike takes it for the old one. With 200 labels beside 400 of each old class,
precision@10 of the new one was .37 when rare classes came to half of the mean, and .44 with all of it (four draws from
CIFAR-10, none a reported stream); the old ones' fell from .77 to .76."""


@dataclass(frozen=True)
class Candidate:
    """trained : labelled items newly learned from."""

    name: Literal["continued", "fresh"]
    grh: GRH
    model: Model
    trained: int

    @property
    def classes(self) -> int:
        return len(self.grh.classes_)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What it takes to continue the learner; nothing if it cannot be."""
        return self.grh.to_arrays() if self.grh.learner in ONLINE else {}


def stored_state(handle: IndexHandle, learner: str) -> tuple[LearnerState | None, str]:
    """The learner's state as it was stored last; None, and why, if it is not one to go on from."""
    stored = handle.trainer.learner()
    if stored is None:
        return None, ""
    try:
        state = LearnerState.from_bytes(stored)
    except IntegrityError:
        return None, "the stored learner is damaged"
    if state.index != identity_text(handle.identity):
        return None, "the stored learner is of another index"
    if state.kind != learner:
        return None, f"the stored learner is of kind {state.kind!r}"
    return state, ""


def continued(
    handle: IndexHandle, state: LearnerState, new: Examples, sample: NDArray[np.float32], signature: Signature
) -> Candidate | str:
    """The stored learner, having learned from what is new, or why it cannot.

    new : labelled items, may be none. sample : items of the index, from which spreads and means are taken.
    """
    from stream_hash.numerics.grh import GRH
    from stream_hash.numerics.learned import learned_model

    try:
        grh = GRH.from_arrays(state.arrays)
        if len(new):
            vectors, labels = _beside(new, sample)
            grh.partial_fit(vectors, labels)
        return Candidate("continued", grh, learned_model(handle.settings, grh, signature), len(new))
    except (StreamHashError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        return f"the stored learner cannot be continued: {error}"


def fresh(
    handle: IndexHandle,
    learner: str,
    window: Examples,
    sample: NDArray[np.float32],
    signature: Signature,
    rng: np.random.Generator,
    *,
    changed: Mapping[str, int] | None = None,
) -> Candidate:
    """A learner that has learned from the window. Raises UnlearnableError when there is nothing to learn.

    changed : class → the sequence number that its present look begins with (class_quality.py).
    """
    from stream_hash.numerics.grh import GRH
    from stream_hash.numerics.learned import learned_model

    settings = handle.settings
    classes = {one for several in window.labels for one in several}
    if len(classes) < 2:
        raise UnlearnableError(
            f"all labelled items are of {len(classes)} class", remedy="label items of two classes or more"
        )
    vectors, labels = _beside(_evened(window, changed or {}), sample)
    # the window is in the order of time, and the feature map is drawn from what comes first
    order = rng.permutation(len(vectors))
    grh = GRH(
        settings.tables * settings.bits,
        learner=learner,
        n_components=LANDMARKS,
        unit_length=settings.metric == "cosine",
        random_state=settings.seed,
    ).fit(vectors[order], [labels[position] for position in order.tolist()])
    return Candidate("fresh", grh, learned_model(settings, grh, signature), len(window))


def signature_for(handle: IndexHandle, live: Model, sample: NDArray[np.float32]) -> Signature:
    """A signature learned from a sample of the index; the live model's if the sample is too small."""
    from stream_hash.numerics.learned_signature import learned_signature

    if len(sample) < LEAST_SAMPLE:
        return live.signature
    return learned_signature(handle.settings, sample, handle.settings.seed)


def _evened(window: Examples, changed: Mapping[str, int]) -> Examples:
    """Items of classes below the mean size, several times: until they come to about that, and REPEATS times at most.

    Of several classes of an item the first one counts. The new look of a class is one beside the old look.
    """
    looks = [
        several[0] + "'" * (changed.get(several[0], sequence + 1) <= sequence)
        for several, sequence in zip(window.labels, window.sequences.tolist(), strict=True)
    ]
    _, classes, counts = np.unique(np.array(looks), return_inverse=True, return_counts=True)
    times = np.clip(np.rint(counts.mean() / counts), 1, REPEATS).astype(np.intp)
    rows = np.repeat(np.arange(len(window)), times[classes])
    labels = [window.labels[row] for row in rows.tolist()]
    return Examples(window.vectors[rows], labels, window.sequences[rows])


def _beside(examples: Examples, sample: NDArray[np.float32]) -> tuple[NDArray[np.float32], list[Sequence[str]]]:
    """Labelled items, and after them those without a label, as GRH takes them."""
    return np.concatenate([examples.vectors, sample]), [*examples.labels, *([()] * len(sample))]

"""Live quality: what arriving labelled items found, each asked before it was stored.

Rules (each is held by one script; tests remove it and see the loss)
1. A figure is one item's. Its position is the item's sequence number; whatever is repeated, it is kept once.
2. Figures of a batch are added by the first attempt at it, until there is a second. So nothing of the batch had been
   written by then, and below the ledger's horizon no figure comes any more: what is there can be taken up in the order
   of positions, although several workers measure out of order.
3. They are taken up into a summary by whoever comes first; who comes second has read an older summary, and changes
   nothing. The wish to train that follows from them is stored at once with the summary.
4. Figures of an index that was wiped are not taken up into another of its name.
5. While nobody takes them up, the newest FIGURES_KEPT are kept and the older ones lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Final

from stream_hash.storage.connection import Client
from stream_hash.storage.keys import IndexKeys
from stream_hash.storage.scripts import Scripts

FIGURES_KEPT: Final = 2_000
"""Some 0.2 MB. At ten figures a second, one is lost when for minutes no batch is finished or no worker sweeps."""


log = logging.getLogger("stream_hash.quality")


@dataclass(frozen=True)
class Figure:
    """What one item found. position : its sequence number. generation : which answered. precision : from 0 to 1.

    label : the item's class as JSON text, of several the first; empty where it is not known.
    """

    position: int
    generation: int
    precision: float
    label: str = ""


@dataclass(frozen=True)
class Stored:
    """folded : below this position all figures are in the summary. summary : JSON, or nothing yet. figures : the
    others, by position.
    """

    folded: int
    summary: bytes
    figures: list[Figure]


class LiveQuality:
    """The figures of one index, and their summary. All methods are safe to repeat."""

    def __init__(self, client: Client, index: str, nonce: str, *, scripts: Mapping[str, str] | None = None) -> None:
        """nonce : of the index that was opened (store.Identity)."""
        self._client, self._nonce = client, nonce
        self._keys = IndexKeys(index)
        self._scripts = Scripts(client, scripts)

    def add(self, batch_id: str, figures: Sequence[Figure]) -> int:
        """Keep figures of a batch's items; how many are new. None is, when the batch was begun twice or has failed."""
        arguments: list[str | int] = [batch_id, FIGURES_KEPT]
        for figure in figures:
            arguments += [figure.position, json.dumps(astuple(figure))]
        return int(self._scripts("quality_add", [self._keys.pending], arguments))

    def read(self, *, below: int | None = None) -> Stored:
        """The summary, and the figures of positions below `below` that are not in it; read in one atomic call.

        What is no figure is left out, and said in the log: the others are worth more than an error.
        """
        pipeline = self._client.pipeline(transaction=True)
        pipeline.hmget(self._keys.quality, "folded", "summary")
        pipeline.zrangebyscore(self._keys.figures, "-inf", "+inf" if below is None else f"({below}")
        (folded, summary), texts = pipeline.execute()
        return Stored(int(folded or 0), summary or b"", [figure for text in texts if (figure := _decode(text))])

    def fold(self, before: int, below: int, summary: str, *, ask: tuple[float, str] | None = None) -> bool:
        """Replace the summary by one that holds all figures below `below`, and forget these.

        before : `Stored.folded`, as read with the summary that this one continues. ask : when (Unix seconds) and why
        training is asked for. False when somebody else folded meanwhile, or the index was wiped.
        """
        wish = [] if ask is None else [repr(float(ask[0])), ask[1]]
        return bool(self._scripts("quality_fold", [self._keys.quality], [self._nonce, before, below, summary, *wish]))


def _decode(text: bytes) -> Figure | None:
    try:
        position, generation, precision, *label = json.loads(text)  # those of earlier versions have no label
        if 0 <= float(precision) <= 1:
            return Figure(int(position), int(generation), float(precision), *map(str, label))
    except (TypeError, ValueError):
        pass
    log.warning("%r is no figure of live quality, and is left out", text[:80])
    return None

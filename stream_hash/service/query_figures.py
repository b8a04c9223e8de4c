"""What queries cost, counted in the process that asks them and brought to the server now and then.

Rules
1. Counting costs microseconds. Every FLUSH_SECONDS at most, and when the interpreter ends, one call adds what has come
   together to the index's tallies. What an index object leaves that goes is brought by a later query of the process,
   never at once: objects go in the midst of anything, also of a call to the same server.
2. No query fails for it. A server that is away gets the figures later; one that refuses them (a read-only account, a
   replica) is not asked again: they stay here, and the log says so once.
3. What a process that is killed had not brought yet is lost. It is monitoring, and no account.
"""

from __future__ import annotations

import atexit
import logging
import math
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final
from weakref import WeakSet

from redis import exceptions

from stream_hash.service.answer import Answer
from stream_hash.storage.tallies import LATENCY_BOUNDS, Tallies, bound_name

FLUSH_SECONDS: Final = 5.0

_BOUNDS: Final = [*map(bound_name, LATENCY_BOUNDS), bound_name(None)]

MOST_LEFT: Final = 1_000
"""Index objects that are gone whose figures wait for a query or the end; beyond these the oldest are lost."""

log = logging.getLogger("stream_hash.queries")


class QueryFigures:
    """The figures of the queries of one process to one index."""

    def __init__(
        self, tallies: Tallies, nonce: Callable[[], str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """nonce : of the index as it is open now."""
        self._tallies, self._nonce, self._clock = tallies, nonce, clock
        self._waiting: Counter[str] = Counter()
        self._due = clock() + FLUSH_SECONDS
        self.total: Counter[str] = Counter()
        """All that was counted here, whether it was brought to the server or not."""
        self.stays = False
        """Whether the server refuses the figures."""
        _living.add(self)

    def add(self, answers: Iterable[Answer]) -> None:
        """Count answers; if it is time, bring what there is to the server, and what others have left."""
        for answer in answers:
            counts = {
                "queries": 1,
                "candidates": answer.candidates,
                "microseconds": round(answer.seconds * 1e6),
                _BOUNDS[bisect_left(LATENCY_BOUNDS, answer.seconds)]: 1,
            }
            self.total.update(counts)
            if not self.stays:
                self._waiting.update(counts)
        if self._clock() >= self._due:
            self.flush()
        _left.bring(self._clock())

    @property
    def waits(self) -> bool:
        """Whether there is something to bring."""
        return bool(self._waiting)

    def leave(self) -> None:
        """Have a later query of the process bring what waits. For finalizers: no call to the server."""
        if self._waiting:
            _left.figures.append(self)

    def flush(self) -> None:
        """Bring what was counted to the server. One round trip; none when there is nothing."""
        if not self._waiting:
            return
        self._due = self._clock() + FLUSH_SECONDS
        try:
            self._tallies.add(self._nonce(), self._waiting)
        except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.RedisClusterException) as error:
            log.debug("the figures of queries wait: %s", error)
            return
        except exceptions.RedisError as error:
            self.stays = True
            log.info("the figures of queries stay in this process, the server refuses them: %s", error)
        self._waiting.clear()


class Left:
    """The figures of index objects that are gone, until a query brings them: every FLUSH_SECONDS at most."""

    def __init__(self) -> None:
        self.figures: deque[QueryFigures] = deque(maxlen=MOST_LEFT)
        self._due = -math.inf

    def bring(self, now: float) -> None:
        """Bring them to their servers, up to one that is away."""
        if not self.figures or now < self._due:
            return
        self._due = now + FLUSH_SECONDS
        for _ in range(len(self.figures)):
            figures = self.figures.popleft()
            figures.flush()
            if figures.waits:
                figures.leave()
                break


_left = Left()
_living: WeakSet[QueryFigures] = WeakSet()


@atexit.register
def _bring_all() -> None:
    for figures in list(_living):
        figures.flush()

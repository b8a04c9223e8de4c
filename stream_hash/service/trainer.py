"""One cycle of an index's trainer: finish what was begun, learn, re-index, clear up.

Rules
1. All of it happens under the lease, and all that counts is refused without it (lease.py).
2. What is unfinished comes first, whoever began it: until every partition has the target live, nothing newer is
   learned. It is found on the server (the target, the partitions' states): a trainer that died is followed by the
   next.
3. Being told to stop, or having lost the lease, ends a cycle between two steps, by an error (StoppedError,
   FencedError). Every step that was done stays done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_hash.errors import GenerationGoneError
from stream_hash.service.handle import IndexHandle
from stream_hash.service.lease import Lease, leading
from stream_hash.service.reindex import Progress, reindex, retire_all
from stream_hash.service.rollback import forget_old
from stream_hash.service.spread import Spread
from stream_hash.storage.trainer_board import TrainerBoard
from stream_hash.storage.trainer_state import Held

if TYPE_CHECKING:
    from stream_hash.service.training import TrainingPlan, TrainingRun

SHOW_SECONDS: Final = 0.5


class StoppedError(Exception):
    """The process was told to stop; what is left is for the next trainer."""


@dataclass(frozen=True)
class Doing:
    """What a trainer is doing. phase : a step of training (training.py), or of the cycle. done, of : items
    re-indexed, of all. rate : items a second.
    """

    phase: str
    generation: int | None = None
    done: int = 0
    of: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a cycle came to.

    held : somebody else is the trainer, and nothing was done. run : of training. live : the generation that went
    live, or was found to be on its way and now is. published : by a rollback.
    """

    held: Held | None = None
    run: TrainingRun | None = None
    live: int | None = None
    published: int | None = None


Action: TypeAlias = "Callable[[Lease], TrainingRun | None]"
"""What a cycle is for: sets a new target, or does not."""


class Cycle:
    """The work of a trainer on one index."""

    def __init__(
        self,
        handle: IndexHandle,
        broker: Any,
        *,
        throttle: float = 1.0,
        stop: Callable[[], bool] = lambda: False,
        on_doing: Callable[[Doing], None] = lambda _: None,
    ) -> None:
        """broker : of the queue of the hash workers, who build the chunks. stop : whether to leave soon."""
        self._handle, self._broker, self._throttle = handle, broker, throttle
        self._stop, self._on_doing = stop, on_doing
        self._board = TrainerBoard(handle.client, handle.name)
        self._shown = -SHOW_SECONDS
        self._phase = ""

    def resume(self) -> Outcome:
        """Finish what was begun. Raises StoppedError, FencedError."""
        return self._lead(lambda _: None)

    def train(
        self,
        plan: TrainingPlan,
        reason: Callable[[], str | None],
        *,
        run_id: str | None = None,
    ) -> Outcome:
        """Learn, if there is a reason to, and re-index if a generation came of it.

        reason : asked under the lease, when all else is finished; None leaves it at that. run_id : of the record of the
        run; None for a new one. Raises StoppedError, FencedError, UsageError.
        """
        from stream_hash.service import training

        def action(lease: Lease) -> TrainingRun | None:
            why = reason()
            if why is None:
                return None
            return training.train(
                self._handle,
                lease.token,
                plan,
                reason=why,
                run_id=run_id,
                on_step=lambda step: self._doing(Doing(step)),
            )

        return self._lead(action)

    def rollback(self, generation: int, *, reindex: bool = True) -> Outcome:
        """Go back to the model of an earlier generation; without `reindex`, only make it the target.

        Raises StoppedError, FencedError, UsageError.
        """
        from stream_hash.service import training

        with leading(self._handle) as lease:
            if isinstance(lease, Held):
                return Outcome(held=lease)
            # What is unfinished is not finished first: it may be the very generation that nobody wants.
            published = training.rollback(self._handle, lease.token, generation)
            live = self._settle(lease) if reindex else None
            return Outcome(live=live, published=published)

    def _lead(self, action: Action) -> Outcome:
        with leading(self._handle) as lease:
            if isinstance(lease, Held):
                return Outcome(held=lease)
            before = self._settle(lease)
            try:
                run = action(lease)
            except GenerationGoneError:
                # what was live at the beginning is forgotten: a newer trainer did that, as the fence of this will tell
                forget_old(self._handle, lease.token)
                raise
            return Outcome(run=run, live=self._settle(lease) or before)

    def _settle(self, lease: Lease) -> int | None:
        """Finish what is unfinished and forget old models; the generation that had to be seen to, if any."""
        self._lease = lease
        try:
            live = self._finish(lease)
            forget_old(self._handle, lease.token)  # what was still in use when the target was published
            return live
        finally:
            self._board.clear()

    def _finish(self, lease: Lease) -> int | None:
        """Have the target live everywhere and all else deleted; the generation that had to be seen to, if any."""
        handle, target = self._handle, self._handle.trainer.target()
        handle.reload_states()
        lagging = target is not None and any(state.live != target for state in handle.states)
        if target is not None and lagging:
            self._doing(Doing("re-indexing", target))
            run = Spread(handle, self._broker, throttle=self._throttle)
            reindex(handle, lease.token, target, run=run, on_progress=lambda p: self._on_progress(target, p))
        if any(handle.generations.retiring()):
            self._doing(Doing("deleting what was replaced", target))
            retire_all(handle)
        return target if lagging else None

    def _on_progress(self, generation: int, progress: Progress) -> None:
        self._doing(Doing("re-indexing", generation, progress.done, progress.items, progress.rate))

    def _doing(self, doing: Doing) -> None:
        """Tell what is being done, and leave if it is time to."""
        self._lease.check()
        if self._stop():
            raise StoppedError(doing.phase)
        self._on_doing(doing)
        moment = time.monotonic()
        if doing.phase != self._phase or moment - self._shown >= SHOW_SECONDS:
            self._phase, self._shown = doing.phase, moment
            self._board.show({"token": self._lease.token, **vars(doing)})


def unfinished(handle: IndexHandle) -> bool:
    """Whether a target is not live everywhere, or something that was replaced is still to be deleted."""
    handle.reload_states()
    target = handle.trainer.target()
    if target is not None and any(state.live != target for state in handle.states):
        return True
    return any(handle.generations.retiring())

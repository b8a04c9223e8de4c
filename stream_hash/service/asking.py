"""Asking for training, a rollback or the end of a re-index, and waiting for it.

A trainer process trains if one lives, and else this process does. Either way it is done once, under the index's lease,
with the hash workers' help.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from stream_hash.errors import StreamHashError
from stream_hash.queue import (
    TRAIN_QUEUE,
    SafeQueue,
    TrainArgument,
    WorkerInfo,
    enqueue_training,
    live_workers,
    training_is_pending,
)
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.trainer import Cycle, Doing, Outcome, unfinished
from stream_hash.storage.connection import redis_errors
from stream_hash.storage.server_clock import server_milliseconds
from stream_hash.storage.trainer_board import TrainerBoard

POLL_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 2.0

OnDoing = Callable[[Doing], None]


def trainers(connections: Connections) -> list[WorkerInfo]:
    """The trainer processes that gave a sign of life lately."""
    with redis_errors():
        return live_workers(connections.broker, TRAIN_QUEUE)


def request_training(connections: Connections, index: str, plan: dict[str, Any]) -> str:
    """Ask whichever trainer comes first; returns the request's id. plan : fields of a TrainingPlan."""
    with redis_errors():
        argument = TrainArgument(secrets.token_hex(8), plan)
        enqueue_training(SafeQueue(TRAIN_QUEUE, connection=connections.broker), index, argument)
        return argument.request


def wait_for(
    connections: Connections, index: str, request: str, *, timeout_seconds: float, on_doing: OnDoing
) -> dict[str, Any]:
    """The record of the run that was asked for, once all that came of it is live.

    Raises what went wrong, or StreamHashError when nobody is there to do it, or it takes too long.
    """
    board = TrainerBoard(connections.client, index)
    deadline, look = time.monotonic() + timeout_seconds, time.monotonic() + LOOK_SECONDS
    while True:
        with redis_errors():
            answer = board.answer_to(request)
            shown = board.progress()
        if answer:
            if answer["error"]:
                what, why, remedy = answer["error"]
                raise StreamHashError(what, why=why, remedy=remedy)
            run: dict[str, Any] = answer["run"]
            return run
        if shown:
            on_doing(doing_of(shown))
        moment = time.monotonic()
        if moment >= look:
            look = moment + LOOK_SECONDS
            with redis_errors():
                pending = training_is_pending(connections.broker, index, request)
                answered = board.answer_to(request)
            if not pending and not answered:
                raise StreamHashError(
                    f"request {request} has failed, several times",
                    why="the trainers that took it up were ended, or met an error that nobody foresaw",
                    remedy="see what the trainers' log says of it, and ask again",
                )
            if not trainers(connections):
                raise StreamHashError(
                    "the trainers are gone",
                    why=f"the request {request} stays on the queue",
                    remedy="start a trainer: stream-hash trainer",
                )
        if moment >= deadline:
            raise _too_long(index, timeout_seconds)
        time.sleep(POLL_SECONDS)


def train_here(
    connections: Connections, index: str, plan: dict[str, Any], *, timeout_seconds: float, on_doing: OnDoing
) -> dict[str, Any]:
    """Train in this process; the record of the run. Raises as `wait_for` does."""
    from stream_hash.service.training import TrainingPlan

    wanted = TrainingPlan(**plan)
    outcome = _patiently(
        connections,
        index,
        lambda cycle: cycle.train(wanted, lambda: "asked for"),
        timeout_seconds=timeout_seconds,
        on_doing=on_doing,
    )
    assert outcome.run is not None  # noqa: S101 - there was a reason
    return asdict(outcome.run)


def roll_back(
    connections: Connections,
    index: str,
    generation: int,
    *,
    throttle: float = 1.0,
    wait: bool = True,
    timeout_seconds: float,
    on_doing: OnDoing,
) -> int:
    """Have the model of an earlier generation go live again; returns its new number.

    wait : do the re-indexing as well, which otherwise is left to a trainer. Raises StreamHashError, UsageError.
    """
    outcome = _patiently(
        connections,
        index,
        lambda cycle: cycle.rollback(generation, reindex=wait),
        throttle=throttle,
        timeout_seconds=timeout_seconds,
        on_doing=on_doing,
    )
    assert outcome.published is not None  # noqa: S101 - or an error was raised
    return outcome.published


def resume(
    connections: Connections, index: str, *, throttle: float = 1.0, timeout_seconds: float, on_doing: OnDoing
) -> int | None:
    """Finish a re-index that was begun, by whomever; returns the generation, None if nothing was unfinished."""
    with redis_errors():
        handle = IndexHandle(connections.client, index)
        if not unfinished(handle):
            return None
        target = handle.trainer.target()
    _patiently(
        connections,
        index,
        lambda cycle: cycle.resume(),
        throttle=throttle,
        timeout_seconds=timeout_seconds,
        on_doing=on_doing,
    )
    return target


def _patiently(
    connections: Connections,
    index: str,
    action: Callable[[Cycle], Outcome],
    *,
    throttle: float = 1.0,
    timeout_seconds: float,
    on_doing: OnDoing,
) -> Outcome:
    """Do it as soon as nobody else is the trainer, which is waited for."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        with redis_errors():
            handle = IndexHandle(connections.client, index)
            outcome = action(Cycle(handle, connections.broker, throttle=throttle, on_doing=on_doing))
            if outcome.held is None:
                return outcome
            shown = TrainerBoard(connections.client, index).progress()
        if shown:
            on_doing(doing_of(shown))
        if time.monotonic() >= deadline:
            seconds = max(0, outcome.held.until - server_milliseconds(connections.client, index)) / 1e3
            raise StreamHashError(
                f"index {index!r} has another trainer: {outcome.held.holder}",
                why=f"only one may work on it at a time; its lease runs for {seconds:.0f} s, or longer if it is alive",
                remedy=f"wait for it (--timeout), and see what it does: stream-hash status {index}",
            )
        time.sleep(POLL_SECONDS)


def doing_of(shown: dict[str, Any]) -> Doing:
    """What the notice board says."""
    return Doing(
        str(shown.get("phase", "")),
        shown.get("generation"),
        int(shown.get("done", 0)),
        int(shown.get("of", 0)),
        float(shown.get("rate", 0.0)),
    )


def _too_long(index: str, timeout_seconds: float) -> StreamHashError:
    return StreamHashError(
        f"index {index!r} was not trained in {timeout_seconds:g} s",
        why="the trainer goes on with it all the same",
        remedy=f"see what it does: stream-hash status {index}",
    )

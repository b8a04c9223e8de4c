"""A trainer process: all indexes of a server, looked at every few seconds, and requests that come by the queue.

Rules
1. Any number of these may run: what one does on an index, it does under that index's lease.
2. Looking costs a few round trips an index, and takes no lease; only work does.
3. An index that fails waits, twice as long each time, so that it neither fills the log nor keeps the others waiting.
4. A request has an id, and the run that it asks for is recorded under it, in the step that stores what was learned.
   So a job that is delivered again, its trainer being killed or paused wherever it was, finds under the lease that it
   was trained, and only has the re-index finished: for as long as its record is among those that are kept, 100. (A
   dry run is not recorded, and may be run again: it changes nothing.) The answer is for whoever waits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from redis import exceptions

from stream_hash.clock import now_seconds
from stream_hash.errors import FencedError, IndexMissingError, StreamHashError
from stream_hash.logs import told
from stream_hash.queue import training_of
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.newcomers import Newcomers
from stream_hash.service.quality import fold
from stream_hash.service.trainer import Cycle, Outcome, StoppedError, unfinished
from stream_hash.storage.store import index_names
from stream_hash.storage.trainer_board import TrainerBoard

RETRY_SECONDS: Final = 0.25
SHORTEST_WAIT_SECONDS: Final = 5.0
LONGEST_WAIT_SECONDS: Final = 300.0

log = logging.getLogger("stream_hash.trainer")


@dataclass(frozen=True)
class Schedule:
    """When to train without being asked: after so many seconds or so many new labels, whichever comes first.

    Sooner where labels of unknown classes come (newcomers.py).
    """

    interval_seconds: float = 300.0
    labels: int = 1_000


class Trainers:
    """The trainers of all indexes of a server, as far as this process is one."""

    def __init__(
        self,
        connections: Connections,
        schedule: Schedule | None = None,
        *,
        learner: str = "pa",
        throttle: float = 1.0,
    ) -> None:
        self.client, self.broker = connections.client, connections.broker
        self.stop: Callable[[], bool] = lambda: False
        self._schedule = schedule or Schedule()
        self._learner = learner
        self._throttle = throttle
        self._newcomers = Newcomers()
        self._failed: dict[str, tuple[float, float]] = {}
        self._forbidden: set[str] = set()

    def look(self) -> None:
        """See to every index that has something unfinished, or is due to be trained."""
        for name in index_names(self.client):
            if self.stop():
                return
            due, wait_seconds = self._failed.get(name, (0.0, SHORTEST_WAIT_SECONDS))
            if time.monotonic() < due:
                continue
            try:
                self._see_to(name)
                self._failed.pop(name, None)
            except StoppedError:
                return
            except IndexMissingError:
                self._failed.pop(name, None)  # listed and not yet created, or wiped
            except FencedError:
                log.info("index %s: another trainer has taken over", name)
            except exceptions.NoPermissionError as error:
                if name not in self._forbidden:  # an account for some indexes only: others see to the rest
                    log.warning("index %s is not looked at: %s", name, error)
                    self._forbidden.add(name)
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                raise  # nothing is wrong with the index, and the next would fare no better
            except Exception:
                log.exception("index %s could not be trained; the next attempt is in %.0f s", name, wait_seconds)
                again = min(2 * wait_seconds, LONGEST_WAIT_SECONDS)
                self._failed[name] = (time.monotonic() + wait_seconds, again)

    def asked(self, index: str, argument: str) -> None:
        """Do what a request asks for. Raises StoppedError or FencedError when it is to be delivered again."""
        request, fields = training_of(argument)
        board = TrainerBoard(self.client, index)
        if board.answer_to(request):
            return
        try:
            run = self._obey(index, fields, request)
        except FencedError:
            raise
        except IndexMissingError:
            log.warning("request %s: there is no index %s", request, index)
            return
        except StreamHashError as error:
            log.warning("request %s: index %s: %s (%s)", request, index, error, error.why)
            board.answer(request, {"run": None, "error": [str(error), error.why, error.remedy]})
            return
        board.answer(request, {"run": run, "error": None})

    def _see_to(self, name: str) -> None:
        # Opened anew each time: the index may be another one of that name by now.
        handle = IndexHandle(self.client, name)
        fold(handle, handle.ledger.horizon())  # sooner than the workers' sweep does: a drop is a reason to train
        if not unfinished(handle) and self._due(handle) is None:
            return
        from stream_hash.service.training import TrainingPlan

        outcome = self._cycle(handle).train(TrainingPlan(learner=self._learner), lambda: self._due(handle))
        _tell(name, outcome)

    def _due(self, handle: IndexHandle) -> str | None:
        from stream_hash.service import training

        ordinary = training.due(
            handle, interval=self._schedule.interval_seconds, labels=self._schedule.labels, now=now_seconds()
        )
        return ordinary or self._newcomers.due(handle)

    def _obey(self, index: str, fields: dict[str, Any], request: str) -> dict[str, Any]:
        """Train as asked, as soon as nobody else is at it, unless it was; the record, once what came of it is live."""
        from stream_hash.service.training import TrainingPlan

        handle = IndexHandle(self.client, index)
        plan = TrainingPlan(**fields)
        recorded: list[dict[str, Any]] = []

        def reason() -> str | None:
            recorded[:] = [run for run in handle.trainer.runs() if run["id"] == request]
            return None if recorded else "asked for"

        while True:
            outcome = self._cycle(handle).train(plan, reason, run_id=request)
            if outcome.held is None:
                _tell(index, outcome)
                return asdict(outcome.run) if outcome.run else recorded[0]
            if self.stop():
                raise StoppedError("waiting for another trainer")
            time.sleep(RETRY_SECONDS)

    def _cycle(self, handle: IndexHandle) -> Cycle:
        return Cycle(handle, self.broker, throttle=self._throttle, stop=self.stop)


def _tell(name: str, outcome: Outcome) -> None:
    if outcome.held is not None:
        log.info("index %s: %s is its trainer", name, outcome.held.holder)
    if outcome.run is not None:
        run = outcome.run
        log.info(
            "index %s: %s: %s",
            *(name, run.decision, run.reason),
            extra=told(
                "training.decided",
                index=name,
                decision=run.decision,
                generation=run.generation,
                trained=run.trained,
                ms=round(run.seconds * 1e3, 3),
            ),
        )
    if outcome.live is not None:
        extra = told("generation.live", index=name, generation=outcome.live)
        log.info("index %s: generation %d is live", name, outcome.live, extra=extra)

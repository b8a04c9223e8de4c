"""The worker: takes jobs from one queue and runs them in its own process.

Rules
1. One queue, no fork: a job runs in this process (a fork for each costs eight times the throughput), and the
   supervisor, not RQ, replaces a process that dies.
2. A job starts in one transaction (out of the intermediate list, into the started ones, under a lease) and
   ends in one. In between, a thread renews the lease every few seconds; when the process dies, the lease runs
   out and any worker queues the job again (recovery.py). The thread also shows that the worker lives. It
   proves no more: a job that hangs is ended by its timeout.
3. The signal handler sets a flag, nothing else: an exception raised from it could fall between a job's move
   out of the queue and its start. The worker waits for jobs a second at a time, and so hears of it soon.
   A second signal, a second or more after the first, ends the process at once; the lease covers its job.
4. The server may go away at any moment. The worker waits for it and goes on, idle or busy; the job whose end
   could not be recorded comes back when its lease has run out, and is applied again, harmlessly. The same
   holds while the server is out of memory; since no job can be taken from the queue then, `on_memory_out` is
   called from time to time, to do without it what can be done. Any other error of the server (it became a
   replica, it refuses the password or a command) ends the process with an error: whoever starts it again also
   connects it anew.
5. A job that fails is queued again by RQ up to its retries, then stays failed; what a failure means for its
   batch is for the ledger, through the job function and `on_maintenance`.
6. Not listened to: RQ's commands by publish/subscribe (shutdown, kill-horse, stop-job) and `rq suspend`.
   They are unauthenticated, need a thread and a connection for each worker, and stop working at the first
   timeout of that connection. There is no horse to kill; SIGTERM is how a worker is stopped.
7. Not cleaned: RQ's groups, dependents, rate limits and schedules. Ours use none, and cleaning them would
   load jobs with RQ's own class, which unpickles.
"""

from __future__ import annotations

import contextvars
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, Final

from redis import Redis, RedisError
from redis.client import Pipeline
from redis.exceptions import AuthenticationError, AuthorizationError, OutOfMemoryError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import worker_registration
from rq.exceptions import DequeueTimeout
from rq.executions import Execution
from rq.job import Job
from rq.job_lifecycle import format_exc_info
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.timeouts import JobTimeoutException, TimerDeathPenalty
from rq.utils import now
from rq.worker import SimpleWorker
from rq.worker.base import WorkerStatus

from stream_hash.clock import now_seconds
from stream_hash.logs import about, milliseconds_since, told
from stream_hash.queue import APPLY_BATCH, JobFunction, SafeJob, SafeQueue
from workers import recovery

LEASE_SECONDS: Final = 15
MAINTENANCE_SECONDS: Final = 5
WORKER_TTL_SECONDS: Final = 30
"""How long a worker is shown as alive after its last sign of life."""
LONGEST_PAUSE_SECONDS: Final = 5.0
FAILURE_CHARACTERS: Final = 8_000

TRANSIENT: Final = (RedisConnectionError, RedisTimeoutError, OutOfMemoryError)
"""Errors that pass without anybody's doing in this process (rule 4)."""

logger = logging.getLogger(__name__)


class StreamWorker(SimpleWorker):
    """Works one queue. `work()` returns when it was told to stop, and raises when it cannot go on.

    functions : what a job may name, by exact name. context : what each function is given first.
    on_maintenance : called by one worker of the queue in each maintenance interval.
    on_memory_out : called after each pause, while the server is out of memory.
    signals : False for a thread other than the main one; `stop()` is then the way to stop it.
    """

    def __init__(
        self,
        queue_name: str,
        broker: Redis,
        *,
        functions: Mapping[str, JobFunction],
        context: object,
        on_maintenance: Callable[[], object] = lambda: None,
        on_memory_out: Callable[[], object] = lambda: None,
        signals: bool = True,
        lease_seconds: int = LEASE_SECONDS,
        maintenance_seconds: int = MAINTENANCE_SECONDS,
    ) -> None:
        self._queue = SafeQueue(queue_name, broker)
        super().__init__(
            [self._queue],
            connection=broker,
            default_result_ttl=0,
            worker_ttl=WORKER_TTL_SECONDS,
            maintenance_interval=maintenance_seconds,
            job_class=SafeJob,
            queue_class=SafeQueue,
            serializer=JSONSerializer,
        )
        self._functions = dict(functions)
        self._context = context
        self._on_maintenance = on_maintenance
        self._on_memory_out = on_memory_out
        self._signals = signals
        self._lease_seconds = lease_seconds
        self._running: tuple[Job, Execution] | None = None
        self._stop_moment = 0.0
        self._maintenance_due = 0.0
        self._stranded: dict[bytes, float] = {}
        if not signals:
            # The other one is an alarm signal, which only the main thread can take.
            self.death_penalty_class = TimerDeathPenalty

    @property
    def dequeue_timeout(self) -> int:
        """Seconds a single wait for a job lasts (rule 3); RQ's socket timeout is ten more."""
        return 1

    def work(self, burst: bool = False) -> bool:  # type: ignore[override] # RQ's other options have no meaning here
        """Work until told to stop, or with `burst` until the queue is empty. Returns whether a job was run."""
        with about(worker=self.name):
            return self._work(burst)

    def _work(self, burst: bool) -> bool:
        self._install_signal_handlers()
        self.birth_date = now()
        self._state = WorkerStatus.IDLE
        logger.info(
            "worker %s: works queue %s as process %d",
            *(self.name, self._queue.name, os.getpid()),
            extra=told("worker.started", queue=self._queue.name, pid=os.getpid()),
        )
        finished = threading.Event()
        context = contextvars.copy_context()  # so that what it logs is said to be of this worker
        beats = threading.Thread(target=context.run, args=(self._beat_until, finished), name="heartbeats", daemon=True)
        beats.start()
        try:
            return self._work_until_stopped(burst)
        finally:
            finished.set()
            beats.join(timeout=2.0)
            self.teardown()

    def _work_until_stopped(self, burst: bool) -> bool:
        worked, pause_seconds = False, 0.0
        while not self._stop_requested:
            try:
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                timeout = None if burst else self.dequeue_timeout
                taken = SafeQueue.dequeue_any(self.queues, timeout, self.connection)
                if taken is None:
                    break
                self.execute_job(*taken)
                worked, pause_seconds = True, 0.0
            except DequeueTimeout:
                pause_seconds = 0.0
            except (AuthenticationError, AuthorizationError):
                # Connection errors by descent, but a password is only read when a process starts.
                raise
            except TRANSIENT as error:
                pause_seconds = min(max(0.2, pause_seconds * 2), LONGEST_PAUSE_SECONDS)
                logger.warning(
                    "worker %s: %s; going on in %.1f s",
                    *(self.name, error, pause_seconds),
                    extra=told("worker.waiting", reason=str(error)),
                )
                self._pause(pause_seconds)
                if isinstance(error, OutOfMemoryError):
                    self._call_on_memory_out()
        return worked

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run a job, in this thread. Raises what keeps its end from being recorded."""
        function = self._functions.get(str(job.func_name))
        if function is None:
            self._queue.set_aside(job.id, f"it names the function {job.func_name!r:.80}, which is not one of ours")
            return
        execution = self._start(job, queue)
        with about(job=job.id, index=job.args[0], **({"batch": job.args[1]} if job.func_name == APPLY_BATCH else {})):
            self._run(job, queue, execution, function)

    def _run(self, job: Job, queue: Queue, execution: Execution, function: JobFunction) -> None:
        start = time.perf_counter()
        try:
            with self.death_penalty_class(job.timeout, JobTimeoutException, job_id=job.id):
                function(self._context, *job.args)
        except Exception:
            job.ended_at = now()
            self._running = None
            failure = format_exc_info(sys.exc_info())[-FAILURE_CHARACTERS:]
            logger.exception(
                "worker %s: job %s failed, %s retries left",
                *(self.name, job.id, job.retries_left),
                extra=told("job.failed", retries_left=job.retries_left, ms=milliseconds_since(start)),
            )
            self.handle_job_failure(job, queue, exc_string=failure, execution=execution)
            self._show(WorkerStatus.IDLE, self.connection)
        else:
            job.ended_at = now()
            self._running = None
            self._finish(job, execution)

    def _start(self, job: Job, queue: Queue) -> Execution:
        with self.connection.pipeline() as pipeline:
            execution = Execution.create(job, self._lease_seconds, pipeline, worker_name=self.name)
            job.prepare_for_execution(self.name, pipeline)
            pipeline.persist(job.key)
            pipeline.lrem(queue.intermediate_queue_key, 1, job.id)
            self._show(WorkerStatus.BUSY, pipeline)
            pipeline.execute()
        self._running = job, execution
        return execution

    def _finish(self, job: Job, execution: Execution) -> None:
        with self.connection.pipeline() as pipeline:
            job.delete(pipeline=pipeline)
            self.cleanup_execution(job, pipeline, execution)
            self.increment_successful_job_count(pipeline)
            if job.started_at and job.ended_at:
                self.increment_total_working_time(job.ended_at - job.started_at, pipeline)
            self._show(WorkerStatus.IDLE, pipeline)
            pipeline.execute()

    def _show(self, state: WorkerStatus, connection: Any) -> None:
        """Set the state; with an expiry, or a hash that had expired would be made again for good."""
        self.set_state(state, connection)
        connection.expire(self.key, WORKER_TTL_SECONDS)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """Whether an interval has passed, on a clock that nobody sets."""
        return time.monotonic() >= self._maintenance_due

    def run_maintenance_tasks(self) -> None:
        """Bring back what dead workers held, then call `on_maintenance`. What fails is logged and left."""
        self._maintenance_due = time.monotonic() + self.maintenance_interval
        patience_seconds = 2.0 * self.maintenance_interval
        tasks: list[Callable[[], object]] = [
            lambda: recovery.move_wrong_types(self._queue),
            lambda: recovery.requeue_abandoned(self._queue, now_seconds()),
            lambda: recovery.requeue_stranded(
                self._queue, self._stranded, time.monotonic(), patience_seconds=patience_seconds
            ),
            lambda: recovery.forget_dead(self._queue, now_seconds()),
            self._call_on_maintenance,
        ]
        for task in tasks:
            try:
                task()
            except TRANSIENT:
                raise
            except Exception:
                logger.exception("worker %s: a maintenance task failed", self.name)

    def _call_on_maintenance(self) -> None:
        """Once in an interval for all workers of the queue: the lock is not released, it expires."""
        key = f"{self._queue.key}:maintenance"
        seconds = max(1, self.maintenance_interval - 1)
        if self.connection.set(key, self.name, nx=True, ex=seconds):
            try:
                self._on_maintenance()
            except Exception:
                logger.exception("worker %s: on_maintenance failed", self.name)
        else:
            # A lock that somebody made without an expiry would stop the sweep for good.
            self.connection.expire(key, seconds, nx=True)

    def _call_on_memory_out(self) -> None:
        try:
            self._on_memory_out()
        except Exception:
            logger.exception("worker %s: on_memory_out failed", self.name)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:  # noqa: ARG002 - RQ's signature
        """Show that the worker lives, and renew the lease of its job.

        Everything is written each time, so that a server that lost its data knows the worker again.
        """
        if pipeline is None:
            with self.connection.pipeline() as own:
                self.heartbeat(pipeline=own)
                own.execute()
            return
        self.last_heartbeat = now()
        pipeline.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
        pipeline.expire(self.key, WORKER_TTL_SECONDS)
        worker_registration.register(self, pipeline)
        running = self._running
        if running:
            job, execution = running
            # Entries are only renewed, never made, so a beat that comes after the job's end brings nothing back.
            execution.heartbeat(job.started_job_registry, self._lease_seconds, pipeline)
            pipeline.expire(self.executions_key, self._lease_seconds)

    def _beat_until(self, finished: threading.Event) -> None:
        while not finished.is_set():
            try:
                self.heartbeat()
            except RedisError as error:
                logger.warning("worker %s: no heartbeat: %s", self.name, error)
            finished.wait(self._lease_seconds / 6)

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop: a long job looks here between its steps."""
        return self._stop_requested

    def stop(self) -> None:
        """Leave after the job in hand. May be called from any thread, and from a signal handler."""
        self._stop_requested = True

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler's signature
        """On SIGTERM or SIGINT: see rule 3."""
        moment = time.monotonic()
        if self._stop_requested and moment - self._stop_moment >= 1.0:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        elif not self._stop_requested:
            self._stop_moment = moment
            self.stop()

    def teardown(self) -> None:
        """Leave the directory of workers, if the server is there to hear it."""
        logger.info("worker %s: leaves", self.name, extra=told("worker.stopped"))
        try:
            self.register_death()  # type: ignore[no-untyped-call] # RQ leaves it untyped
        except RedisError as error:
            logger.warning("worker %s: its entry will expire: %s", self.name, error)

    def _pause(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._stop_requested and time.monotonic() < deadline:
            time.sleep(0.05)

    def _install_signal_handlers(self) -> None:
        if self._signals:
            super()._install_signal_handlers()  # type: ignore[no-untyped-call] # the same

    def _set_ip_address(self, connection: Redis) -> None:  # noqa: ARG002 - RQ's signature
        """RQ names one connection of many and asks for its address, which a server may deny."""
        self.ip_address = "unknown"

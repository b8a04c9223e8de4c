"""The supervisor: keeps a number of worker processes alive, and takes them down with itself.

Rules
1. A child that ends, for whatever reason and with whatever code, is started again: at once after a long life,
   after a wait that doubles to ten seconds when it keeps dying.
2. On SIGTERM or SIGINT each child gets SIGTERM, and the time to finish its job; what is left after the grace
   is killed. A second signal, a second or more after the first, shortens the grace to nothing.
3. Each child is in a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone.
4. No orphans: only the supervisor holds the writing end of a pipe whose reading end each child has. However
   the supervisor dies, a child then reads the end of the file, and sends SIGTERM to itself. (Linux could
   do it in the kernel; this works everywhere.)
5. Signals only wake the loop: Python writes their numbers into a pipe that the loop reads.
6. It gives up when no child could ever work: each has ended by itself with an error, GIVE_UP_LIVES times in a row, and
   none of any has lived long. That is a wrong URL, a refused password, a broken installation: it leaves with their exit
   code, and whoever started it learns of it. Once a child has worked it never gives up, since what was right
   before may be so again; and a child that was killed (no memory, a batch that crashes it) has worked.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stream_hash.logs import told

PIPE_VARIABLE: Final = "STREAM_HASH_SUPERVISOR_PIPE"

SHORTEST_WAIT_SECONDS: Final = 0.2
LONGEST_WAIT_SECONDS: Final = 10.0
LONG_LIFE_SECONDS: Final = 30.0
GRACE_SECONDS: Final = 60.0
GIVE_UP_LIVES: Final = 5

logger = logging.getLogger(__name__)


@dataclass
class _Slot:
    """The place of one child: what it runs, the process in it, and when the next may follow.

    failures : lives in a row that it ended itself, with an error. code : of the last of them.
    """

    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    wait_seconds: float = 0.0
    failures: int = 0
    code: int = 0


class Supervisor:
    """Runs `processes` children of `command`, each with `environment` added to this process's own.

    beside : commands of which one child each is run as well.
    """

    def __init__(
        self,
        command: Sequence[str],
        processes: int,
        *,
        beside: Sequence[Sequence[str]] = (),
        environment: Mapping[str, str] | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._slots = [_Slot(list(one)) for one in [command] * processes + list(beside)]
        self._environment = dict(environment or {})
        self._grace_seconds = grace_seconds
        self._stopped_at: float | None = None
        self._deadline = 0.0
        self._has_worked = False

    def run(self) -> int:
        """Keep the children running until SIGTERM or SIGINT. Returns 0: it was told to stop, and did; or the exit code
        of children that could never work (rule 6).

        Only in a main thread, which alone receives signals.
        """
        lifeline, self._writing_end = os.pipe()
        woken, waker = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        while True:
            moment = time.monotonic()
            self._reap(moment)
            if self._stopped_at is None and self._is_in_vain():
                code = self._slots[0].code
                logger.error(
                    "supervisor: gives up: its workers ended with %d, %d times each, and none could ever work",
                    *(code, GIVE_UP_LIVES),
                    extra=told("supervisor.failed", code=code),
                )
                return code
            if self._stopped_at is None:
                self._start_due(moment, lifeline)
            elif not self._living():
                logger.info("supervisor: all workers have left", extra=told("supervisor.ended"))
                return 0
            elif moment >= self._deadline:
                self._send(signal.SIGKILL)
            self._wait(woken, moment)

    def _wait(self, woken: int, moment: float) -> None:
        """Sleep until a signal comes or something is due, and take the signals in."""
        if self._stopped_at is None:
            dues = [slot.due for slot in self._slots if slot.process is None]
        else:
            dues = [max(self._deadline, moment + 1.0)]
        timeout = max(0.0, min(dues) - moment) if dues else None
        if not select.select([woken], [], [], timeout)[0]:
            return
        for number in os.read(woken, 4_096):
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(time.monotonic())

    def _stop(self, moment: float) -> None:
        if self._stopped_at is None:
            logger.info("supervisor: stopping, the workers finish their jobs")
            self._stopped_at = moment
            self._deadline = moment + self._grace_seconds
            self._send(signal.SIGTERM)
        elif moment - self._stopped_at >= 1.0:
            logger.warning("supervisor: told to stop twice, the workers are killed")
            self._deadline = moment

    def _living(self) -> list[subprocess.Popen[bytes]]:
        return [slot.process for slot in self._slots if slot.process is not None]

    def _send(self, number: signal.Signals) -> None:
        for process in self._living():
            process.send_signal(number)

    def _reap(self, moment: float) -> None:
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is not None:
                ended, slot.process = slot.process, None
                self._judge(slot, ended.returncode, moment)
                self._put_off(slot, moment)
                if self._stopped_at is None:
                    logger.warning(
                        "supervisor: worker process %d ended with %d, the next starts in %.1f s",
                        *(ended.pid, ended.returncode, slot.due - moment),
                        extra=told("process.ended", pid=ended.pid, code=ended.returncode),
                    )

    def _judge(self, slot: _Slot, code: int, moment: float) -> None:
        """Whether a life that has ended was one that could not work (rule 6)."""
        if code <= 0 or moment - slot.started >= LONG_LIFE_SECONDS:
            self._has_worked = True
        else:
            slot.failures, slot.code = slot.failures + 1, code

    def _is_in_vain(self) -> bool:
        return not self._has_worked and all(
            slot.process is None and slot.failures >= GIVE_UP_LIVES for slot in self._slots
        )

    def _start_due(self, moment: float, lifeline: int) -> None:
        for slot in self._slots:
            if slot.process is None and slot.due <= moment:
                slot.started = moment
                try:
                    slot.process = subprocess.Popen(  # noqa: S603 - a command of this project, and no shell
                        slot.command,
                        env={**os.environ, **self._environment, PIPE_VARIABLE: str(lifeline)},
                        pass_fds=(lifeline,),
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                except OSError:
                    # The machine is short of something: the other workers go on meanwhile.
                    logger.exception("supervisor: a worker process could not be started")
                    self._put_off(slot, moment)
                else:
                    pid = slot.process.pid
                    logger.info("supervisor: started worker process %d", pid, extra=told("process.started", pid=pid))

    def _put_off(self, slot: _Slot, moment: float) -> None:
        lived_long = moment - slot.started >= LONG_LIFE_SECONDS
        doubled = 0.0 if lived_long else slot.wait_seconds * 2
        slot.wait_seconds = min(max(doubled, SHORTEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS)
        slot.due = moment + slot.wait_seconds


def leave_with_supervisor(grace_seconds: float = GRACE_SECONDS) -> None:
    """In a child: watch the supervisor's pipe, and stop this process in order when the supervisor is gone.

    Does nothing in a process that no supervisor started.
    """
    descriptor = os.environ.get(PIPE_VARIABLE, "")
    if not descriptor.isdecimal():
        return

    def watch() -> None:
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)
        # Nobody is left to kill a worker that does not leave.
        time.sleep(grace_seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="supervisor-watch", daemon=True).start()

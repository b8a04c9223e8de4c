"""The doctor: each of its findings, produced for real on servers of the tests' own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import servers

from stream_hash.clock import now_milliseconds
from stream_hash.queue import HASH_QUEUE, live_workers
from stream_hash.service.connections import Connections
from stream_hash.service.doctor import ERROR, OK, WARNING, Finding, examine, is_alive_here, server
from stream_hash.service.doctor.workers import STALE_SECONDS
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings
from stream_hash.storage import connection
from stream_hash.storage.codec import Batch
from stream_hash.storage.connection import connect
from stream_hash.storage.ledger import DeadLetter
from stream_hash.storage.store import Store

MINUTE = 60_000


@pytest.fixture(scope="module")
def directory(server_directory: Path) -> Path:
    path = server_directory / "doctor"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def url(directory: Path) -> Iterator[str]:
    """A server of this module's own, which the tests ill-treat and mend again."""
    with servers.running_server(servers.bundled_binary(), directory) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def handle(client: redis.Redis) -> IndexHandle:
    """An index with two items."""
    Store(client, "x").create(IndexSettings(3, bits=4))
    handle = IndexHandle(client, "x")
    vectors = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    handle.ledger.accept("b", Batch("upsert", ["a", "b"], vectors), lease_until=0)
    apply_batch(handle, "b")
    return handle


def found(client: Any, check: str, *, later: int = 0, **options: Any) -> list[Finding]:
    """The findings of one check. later : by how many milliseconds the clock is ahead."""
    connections = Connections(client, client)
    return [
        finding
        for finding in examine(connections, now_milliseconds=now_milliseconds() + later, **options)
        if finding.check == check
    ]


def one(client: Any, check: str, **options: Any) -> Finding:
    (finding,) = found(client, check, **options)
    assert bool(finding.fix) == (finding.level != OK), finding
    return finding


def test_a_sound_server_and_index_have_no_errors(handle: IndexHandle, client: redis.Redis) -> None:
    findings = list(examine(Connections(client, client), now_milliseconds=now_milliseconds()))
    assert {finding.check for finding in findings if finding.level != OK} == {"persistence", "workers"}
    assert [finding.level for finding in findings if finding.level == ERROR] == []
    assert one(client, "generations").finding == "generation 1, checksum right"
    assert one(client, "version").finding.startswith("valkey ")
    verified = one(client, "consistency", verify=True)
    assert (verified.level, verified.finding) == (OK, "every invariant holds")


@pytest.mark.parametrize(
    ("version", "level"), [("6.2.14", ERROR), ("7.0.0", OK), ("7.0.15", OK), ("10.0.0", OK), ("5.9.9", ERROR)]
)
def test_a_server_older_than_the_oldest_is_an_error(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, version: str, level: str
) -> None:
    """What it says of itself, with another version."""
    said = connection.greeting(client)
    monkeypatch.setattr(server, "greeting", lambda _: {**said, "version": version})
    finding = one(client, "version")
    assert (finding.level, "the oldest supported is 7.0" in finding.finding) == (level, level == ERROR)
    assert finding.finding.startswith(f"valkey {version}")


CONFIGURED: list[tuple[dict[str, str], str, str, str]] = [
    ({"maxmemory-policy": "allkeys-lru"}, "eviction", ERROR, "it evicts keys"),
    ({"maxmemory-policy": "noeviction"}, "eviction", OK, "noeviction"),
    ({"maxmemory": "1"}, "memory", ERROR, "writes are refused"),
    ({"maxmemory": "8gb"}, "memory", OK, "of maxmemory's"),
    ({"maxmemory": "0"}, "memory", OK, "no maxmemory"),
    ({"appendonly": "yes"}, "persistence", OK, "append-only file"),
    ({"appendonly": "yes", "appendfsync": "no"}, "persistence", WARNING, "appendfsync is no"),
    ({"save": "3600 1"}, "persistence", WARNING, "snapshots only"),
    ({"save": ""}, "persistence", WARNING, "nothing is kept"),
    ({"min-replicas-to-write": "1"}, "replication", ERROR, "0 good replicas, and min-replicas-to-write is 1"),
    ({}, "replication", OK, "no replicas"),
]


@pytest.mark.parametrize(("settings", "check", "level", "said"), CONFIGURED, ids=str)
def test_how_a_server_is_configured_is_told(
    client: redis.Redis, url: str, settings: dict[str, str], check: str, level: str, said: str
) -> None:
    before = {name: client.config_get(name)[name] for name in settings}
    try:
        for name, value in settings.items():
            client.config_set(name, value)
        finding = one(client, check)
    finally:
        for name, value in before.items():
            client.config_set(name, value)
    assert (finding.level, said in finding.finding) == (level, True), finding
    if level != OK and check in ("eviction", "persistence"):
        assert finding.fix.startswith(f"redis-cli -s {url.removeprefix('unix://')} CONFIG SET ")


def test_memory_that_is_nearly_used_up_is_a_warning(client: redis.Redis) -> None:
    client.config_set("maxmemory", int(client.info("memory")["used_memory"] * 1.05))
    try:
        assert one(client, "memory").level == WARNING
    finally:
        client.config_set("maxmemory", 0)


def test_a_snapshot_that_failed_is_an_error(client: redis.Redis, directory: Path) -> None:
    """Its file cannot be put where a directory stands."""
    (directory / "dump.rdb").mkdir()
    (directory / "dump.rdb" / "in the way").touch()
    done = client.info("persistence")["rdb_saves"]
    client.bgsave()
    _wait_for_snapshot(client, "err")
    assert any(f.level == ERROR and "the last snapshot failed" in f.finding for f in found(client, "persistence"))
    (directory / "dump.rdb" / "in the way").unlink()
    (directory / "dump.rdb").rmdir()
    client.bgsave()
    _wait_for_snapshot(client, "ok")
    assert client.info("persistence")["rdb_saves"] > done


def test_an_append_only_file_that_cannot_be_written_is_an_error(directory: Path) -> None:
    """A server that may not write files of more than 32 kB, and is not killed for trying."""
    binary = directory / "narrow-server"
    limit = "trap '' XFSZ; ulimit -f 64"  # in blocks of 512 bytes
    binary.write_text(f'#!/bin/sh\n{limit}\nexec {servers.bundled_binary()} "$@"\n')
    binary.chmod(0o755)
    own = directory / "narrow"
    own.mkdir()
    with servers.running_server(binary, own, appendonly="yes") as url, redis.Redis.from_url(url) as narrow:
        assert one(narrow, "persistence").level == OK
        narrow.set("large", b"x" * 100_000)
        servers.wait_until(lambda: narrow.info("persistence")["aof_last_write_status"] == "err", what="the failure")
        finding = one(narrow, "persistence")
        assert (finding.level, "writes are refused" in finding.finding) == (ERROR, True)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            narrow.set("small", b"x")


def _wait_for_snapshot(client: redis.Redis, status: str) -> None:
    servers.wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == status, what="the snapshot")


def test_a_read_only_replica_is_an_error(client: redis.Redis) -> None:
    client.replicaof("primary.invalid", 6399)
    try:
        finding = one(client, "replication")
    finally:
        client.replicaof("NO", "ONE")
    assert (finding.level, finding.finding) == (ERROR, "it is a read-only replica")
    assert finding.fix == "use its primary: primary.invalid:6399"


def test_replicas_without_a_minimum_and_out_of_step_are_warnings(client: redis.Redis, directory: Path) -> None:
    """The module's server follows one of this test's own for a moment, and at first is let wait for its copy."""
    (port,) = servers.free_ports(1)
    options = {"port": port, "bind": "127.0.0.1", "repl-diskless-sync-delay": 600}

    def state() -> object:
        return primary.info("replication").get("slave0", {}).get("state")

    with (
        servers._process(servers.bundled_binary(), directory, "primary", **options),
        redis.Redis(port=port) as primary,
    ):
        servers.wait_until(lambda: servers._answers(primary), what="the primary")
        client.replicaof("127.0.0.1", port)
        try:
            servers.wait_until(lambda: state() == "wait_bgsave", what="the replica to wait")
            finding = one(primary, "replication")
            assert (finding.level, finding.finding) == (WARNING, "1 of 1 replicas are not in step")
            primary.config_set("repl-diskless-sync-delay", 0)
            servers.wait_until(lambda: state() == "online", what="the replica")
            finding = one(primary, "replication")
            assert (finding.level, "a failover may lose" in finding.finding) == (WARNING, True)
            primary.config_set("min-replicas-to-write", 1)
            servers.wait_until(lambda: one(primary, "replication").level == OK, what="a good replica")
        finally:
            client.replicaof("NO", "ONE")


def test_a_machine_that_is_nearly_full_is_a_warning(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MACHINE_WARNING", 0.0)
    assert one(client, "memory").level == WARNING


def test_a_cluster_is_looked_at_node_by_node(cluster_url: str) -> None:
    opened = connect(cluster_url)
    opened.flushall()
    opened.sadd("sh:indexes", "unfinished")
    connections = Connections(opened, redis.Redis.from_url(cluster_url))
    levels = [f.level for f in server_findings(connections, "cluster")]
    assert levels == [OK, OK, OK]
    node = connections.broker
    (slot,) = [node.execute_command("CLUSTER", "KEYSLOT", "sh:indexes")]
    owner = opened.get_redis_connection(opened.nodes_manager.get_node_from_slot((slot + 1) % 16_384))
    owner.execute_command("CLUSTER", "DELSLOTS", (slot + 1) % 16_384)
    try:
        servers.wait_until(lambda: owner.execute_command("CLUSTER INFO")["cluster_state"] == "fail", what="the gap")
        said = [f for f in server_findings(connections, "cluster") if f.level == ERROR]
        assert any("16383 of 16384 slots are served" in f.finding for f in said)
        assert all("--cluster fix" in f.fix for f in said)
    finally:
        owner.execute_command("CLUSTER", "ADDSLOTS", (slot + 1) % 16_384)
        servers.wait_until(lambda: owner.execute_command("CLUSTER INFO")["cluster_state"] == "ok", what="the cluster")


def server_findings(connections: Connections, check: str) -> list[Finding]:
    return [finding for finding in server.findings(connections.client, "server") if finding.check == check]


def test_what_an_acl_forbids_is_said_and_the_rest_is_looked_at(client: redis.Redis, url: str) -> None:
    Store(client, "x").create(IndexSettings(3, bits=4))
    client.execute_command("ACL", "SETUSER", "few", "on", ">pw", "~*", "&*", "+@all", "-info", "-config")
    with redis.Redis.from_url(url, username="few", password="pw") as limited:  # noqa: S106 - of a user of this test
        findings = list(examine(Connections(limited, limited), now_milliseconds=now_milliseconds()))
        of = {finding.check: finding for finding in findings}
        for check in ("eviction", "memory", "persistence", "replication"):
            assert of[check].level == WARNING
            assert of[check].finding.startswith("not permitted to look: ")
            assert of[check].fix == "redis-cli ACL SETUSER USER +info"
        assert (of["version"].level, of["consistency"].level) == (OK, OK)
        client.execute_command("ACL", "SETUSER", "few", "+info")
        assert "not permitted to look whether there are snapshots" in one(limited, "persistence").finding
        client.execute_command("ACL", "SETUSER", "few", "-hgetall", "-hget", "-zrange", "-smembers", "+smembers")
        assert any(f.finding.startswith("not permitted to look: ") for f in found(limited, "generations"))
    client.execute_command("ACL", "DELUSER", "few")


def test_a_missing_and_a_silent_worker_are_told(handle: IndexHandle, client: redis.Redis, url: str) -> None:
    nobody = found(client, "workers")[0]
    assert (nobody.level, nobody.fix) == (WARNING, "stream-hash worker")
    assert is_alive_here(client, "worker", now_milliseconds()).level == ERROR
    handle.ledger.accept("waits", Batch("delete", ["a"]), lease_until=2**52)
    assert found(client, "workers")[0].level == ERROR
    program = [sys.executable, "-m", "stream_hash.cli", "worker"]
    root = str(Path(__file__).parents[2])
    env = {"STREAM_HASH_URL": url, "PYTHONPATH": root, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(program, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            servers.wait_until(lambda: live_workers(client, HASH_QUEUE), what="the worker", timeout_seconds=60)
            assert (found(client, "workers")[0].level, found(client, "heartbeat")) == (OK, [])
            assert is_alive_here(client, "worker", now_milliseconds()).level == OK
            assert is_alive_here(client, "trainer", now_milliseconds()).level == ERROR
            late = int(STALE_SECONDS * 1_000) + 60_000
            silent = one(client, "heartbeat", later=late)
            assert silent.level == WARNING
            assert f"kill {process.pid}" in silent.fix
            assert found(client, "workers", later=late)[0].level == ERROR
            assert is_alive_here(client, "worker", now_milliseconds() + late).level == ERROR
        finally:
            process.kill()


def test_batches_that_wait_for_long_are_a_warning(handle: IndexHandle, client: redis.Redis) -> None:
    handle.ledger.accept("waits", Batch("delete", ["a", "b"]), lease_until=2**52)
    assert one(client, "queue").finding == "2 items in 1 batches wait"
    assert one(client, "queue", later=2 * MINUTE).level == WARNING
    assert ", the oldest for 12" in one(client, "queue", later=2 * MINUTE).finding
    handle.ledger.finish("waits")
    assert one(client, "queue", later=2 * MINUTE).level == OK


def test_dead_letters_are_a_warning(handle: IndexHandle, client: redis.Redis) -> None:
    assert one(client, "dead letters").level == OK
    handle.ledger.accept("dies", Batch("delete", ["a", "b"]), lease_until=0)
    handle.ledger.finish("dies", [DeadLetter(3, 2, "dies", "why", b"")])
    finding = one(client, "dead letters")
    assert (finding.level, finding.finding) == (WARNING, "2 items died")


def test_a_damaged_model_is_an_error_with_a_way_back_if_there_is_one(handle: IndexHandle, client: redis.Redis) -> None:
    arrays = handle.models.load(1)
    client.setrange(handle.store.keys.model(1), 100, b"damage")
    finding = one(client, "generations")
    assert finding.level == ERROR
    assert "the model of generation 1 is missing or damaged" in finding.finding
    assert "restore" in finding.fix
    handle.models.publish(handle.identity.nonce, 2, arrays, kind="lsh", created=0.0)
    assert one(client, "generations").fix == "stream-hash rollback x 2"
    client.delete(handle.store.keys.model(1))
    assert one(client, "generations").level == ERROR


def test_a_re_index_that_nobody_works_on_is_a_warning(handle: IndexHandle, client: redis.Redis) -> None:
    client.hset(handle.store.keys.trainer, "target", 2)
    finding = one(client, "generations")
    assert (finding.level, "nobody works on it" in finding.finding) == (WARNING, True)
    assert finding.fix.startswith("stream-hash reindex x --resume")
    now = now_milliseconds()
    handle.trainer.lead("me", now=now, until=now + MINUTE)
    assert one(client, "generations").finding == "generation 1, checksum right, re-indexing"


DAMAGE: dict[str, tuple[Callable[[IndexHandle], object], str]] = {
    "items": (lambda h: h.client.hincrby(h.store.partition(0).state, "items", 1), "it counts 3 items"),
    "members": (lambda h: h.client.hincrby(h.store.partition(0).state, "members:1:0", 1), "it counts 3 members"),
    "accepted": (lambda h: h.client.hincrby(h.store.keys.counters, "accepted", 1), "the ledger has accepted 3"),
    "letters": (lambda h: h.client.hset(h.store.keys.dead, 9, b'{"items": 1, "batch": "", "reason": ""}\n'), "hold 1"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_counts_that_do_not_agree_are_errors(handle: IndexHandle, client: redis.Redis, what: str) -> None:
    damage, said = DAMAGE[what]
    damage(handle)
    finding = one(client, "consistency")
    assert (finding.level, said in finding.finding) == (ERROR, True), finding
    assert "stream-hash verify x tells all" in finding.fix


def test_only_verify_finds_a_member_in_the_wrong_bucket(handle: IndexHandle, client: redis.Redis) -> None:
    (bucket, *_) = client.keys("sh:{x:0}:bucket:1:0:*")
    member = client.spop(bucket)
    client.sadd(bucket, int(member) + 1)
    assert one(client, "consistency").level == OK
    assert {f.level for f in found(client, "consistency", verify=True)} == {ERROR}


def test_an_index_that_is_not_whole_is_told_and_the_others_are_looked_at(
    handle: IndexHandle, client: redis.Redis
) -> None:
    client.sadd("sh:indexes", "gone", "half")
    client.set("sh:{half}:dropping", handle.client.get(handle.store.keys.settings))
    of = {finding.subject: finding for finding in found(client, "index")}
    assert set(of) == {"index gone", "index half"}
    assert {finding.level for finding in of.values()} == {WARNING}
    assert of["index half"].fix == "stream-hash drop half --yes"
    assert one(client, "consistency").subject == "index x"


def test_keys_of_another_kind_are_errors_and_not_tracebacks(handle: IndexHandle, client: redis.Redis) -> None:
    client.delete(handle.store.keys.counters)
    client.set(handle.store.keys.counters, "no hash")
    assert one(client, "consistency").level == ERROR  # and the others are made
    client.delete(handle.store.keys.arrived)
    client.set(handle.store.keys.arrived, "no hash")
    assert (one(client, "queue").level, "WRONGTYPE" in one(client, "queue").finding) == (ERROR, True)

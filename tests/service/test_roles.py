"""Accounts: on a real server each role does its whole work, and nothing else."""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import servers
from redis.exceptions import NoPermissionError
from redis.utils import str_if_bytes
from training_support import digits

from stream_hash import Index, Producer
from stream_hash.errors import ServerRefusedError, ServerUnreachableError, UsageError
from stream_hash.jobs import FUNCTIONS, TRAINER_FUNCTIONS, apply_overdue
from stream_hash.queue import (
    HASH_QUEUE,
    TRAIN_QUEUE,
    SafeQueue,
    TrainArgument,
    enqueue_batch,
    enqueue_training,
    live_workers,
)
from stream_hash.service.connections import Connections
from stream_hash.service.context import Context
from stream_hash.service.doctor import OK, server
from stream_hash.service.handle import IndexHandle
from stream_hash.service.roles import ROLES, acl_user, default_user
from stream_hash.service.schedule import Trainers
from stream_hash.service.status import server_status
from stream_hash.service.trainer import Cycle
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import connect
from workers.base import StreamWorker

PASSWORD = "correct-horse-battery-staple"  # noqa: S105 - of servers that end with the test
SETTINGS = IndexSettings(64, bits=6, partitions=2)
ITEMS = 400

SELDOM = {
    "blmove": "waiting for a job",
    "cluster|info": "the doctor, on a cluster",
    "cluster|shards": "the map of a cluster, by a newer client",
    "cluster|slots": "the map of a cluster",
    "command": "where the keys of a command stand, on a cluster",
    "incrby": "a label or a delete at once",
    "lpop": "an item number that is given again",
    "mset": "an item that replaces another",
    "ping": "for whoever looks whether the server is up",
    "rename": "a malformed job is set aside",
    "scard": "verify, where a bucket is large",
    "select": "a URL with the number of a database",
    "setbit": "a chunk is built",
    "sismember": "verify, where a bucket is large",
    "xadd": "a job fails for good",
    "zremrangebyrank": "more figures than are kept",
}
"""What a role has and did not use in this test, with what it is for."""


@dataclass
class Guarded:
    """A server with an account for each role: ROLE for the index `mine` alone, all-ROLE for every one."""

    url: str
    admin: Any
    used: dict[str, set[str]] = field(default_factory=dict)

    def connections(self, role: str) -> Connections:
        return Connections.open(self.url.replace("unix://", f"unix://{role}:{PASSWORD}@"))

    def client(self, role: str) -> Any:
        return redis.Redis.from_url(self.url, username=role, password=PASSWORD)

    def allows(self, role: str, *command: object) -> bool:
        """Whether the account may send a command; nothing is done."""
        return bool(self.admin.execute_command("ACL", "DRYRUN", role, *command) == b"OK")

    @contextlib.contextmanager
    def recording(self, role: str) -> Iterator[Connections]:
        """What the server is asked for, scripts and all, by what is done on the account's connections."""
        self.admin.config_resetstat()
        yield self.connections(role)
        stats = self.admin.info("commandstats")
        self.used[role] = {name.removeprefix("cmdstat_") for name, one in stats.items() if one["calls"]}


def set_roles(client: Any) -> None:
    for role in ROLES:
        for index, prefix in (("mine", ""), (None, "all-")):
            words = acl_user(role, index=index, prefix=prefix, password=PASSWORD).split(" ")[1:]
            client.execute_command("ACL", "SETUSER", *words)


@pytest.fixture(scope="module", params=["embedded", "redis"])
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    binary = servers.bundled_binary() if request.param == "embedded" else servers.path_redis_binary()
    with (
        tempfile.TemporaryDirectory(prefix="sh-") as directory,
        servers.running_server(binary, Path(directory)) as url,
        redis.Redis.from_url(url) as admin,
    ):
        set_roles(admin)
        Index.create("other", SETTINGS, Connections(admin, None))
        yield Guarded(url, admin)


@pytest.fixture(scope="module")
def worked(guarded: Guarded) -> Guarded:
    """The server after each account has done what it is for: an index from its creation to its last query."""
    x, y = digits()
    with guarded.recording("owner") as connections:
        Index.create("mine", SETTINGS, connections)
        Index.drop("mine", connections)
        index = Index.create("mine", SETTINGS, connections)
        index.label(["i9"], [7])
        index.delete(["i9"])
    with guarded.recording("producer") as connections, Producer("mine", connections) as producer:
        producer.upsert_many([f"i{n}" for n in range(ITEMS)], x[:ITEMS], labels=y[:ITEMS].tolist())
        producer.delete(["i3"])
        producer.flush()
        assert producer.outstanding() == 3
        assert producer.dead_letters() == []
    with guarded.recording("worker") as connections:
        context = Context(connections)
        enqueue_batch(SafeQueue(HASH_QUEUE, connections.broker), "gone", "b")  # fails, and is tried again
        run(
            StreamWorker(HASH_QUEUE, connections.broker, functions=FUNCTIONS, context=context, signals=False),
            context.sweep,
        )
    with guarded.recording("trainer") as connections:
        trainers = Trainers(connections, learner="ridge")
        enqueue_training(SafeQueue(TRAIN_QUEUE, connections.broker), "mine", TrainArgument("r1", {"force": True}))
        run(
            StreamWorker(TRAIN_QUEUE, connections.broker, functions=TRAINER_FUNCTIONS, context=trainers, signals=False),
            trainers.look,
        )
    with guarded.recording("reader") as connections:
        index = Index("mine", connections)
        assert index.status()["generation"] == 2
        assert [answer.results[0].id for answer in index.query(x[4:8], k=1)] == ["i4", "i5", "i6", "i7"]
        assert index.query(x[7], label=int(y[7]))[0].results[0].id == "i7"
        index.query(x[7], radius=1)
        index.query(x[7], exact=True)
        assert index.get(["i3"]) == [None]
        assert index.verify().violations == []
        index.tune(5, target_recall=0.5, queries=20)
        index.generations()
        assert index.dead_letters() == []
        assert [one["index"] for one in server_status(connections)["indexes"]] == ["mine"]
    return guarded


def run(worker: StreamWorker, maintenance: Any) -> None:
    worker.work(burst=True)
    maintenance()


def test_each_role_does_its_work_and_is_refused_nothing_of_it(worked: Guarded) -> None:
    refused = refusals(worked)
    # Redis 7.0 has no client|setinfo, so no words that all servers understand can grant it.
    expected = {("sh:{other}:settings", "key"), ("sh:{gone}:settings", "key")}
    assert refused - {("client|setinfo", "command")} == expected


def test_no_role_has_a_command_that_its_work_does_not_take(worked: Guarded) -> None:
    anybody = set().union(*worked.used.values())
    for role in ("reader", "producer", "worker", "trainer"):
        writes = {name for name in granted(role) if "write" in flags(worked, name)}
        # who may read an index may read it with every command that any role reads it with
        unused = (writes - worked.used[role]) | (granted(role) - anybody)
        assert unused <= set(SELDOM), role


def refusals(guarded: Guarded) -> set[tuple[str, str]]:
    """What was refused, and why, of the server's log."""
    log = [as_text(entry) for entry in guarded.admin.acl_log()]
    return {(entry["object"], entry["reason"]) for entry in log}


def as_text(entry: Mapping[Any, Any]) -> dict[str, Any]:
    """An entry of the log as text: redis-py 8.0 leaves bytes, 8.1 does not."""
    return {str_if_bytes(name): str_if_bytes(value) for name, value in entry.items()}


def granted(role: str) -> set[str]:
    return set(re.findall(r"\+(\S+?)(?=[\s)])", acl_user(role) + " "))


def flags(guarded: Guarded, command: str) -> set[str]:
    (info,) = guarded.admin.execute_command("COMMAND", "INFO", command).values()
    return set(info["flags"])


def test_chunks_go_from_a_trainer_to_a_worker(worked: Guarded) -> None:
    worked.admin.acl_log_reset()
    connections = worked.connections("worker")
    context = Context(connections)
    worker = StreamWorker(HASH_QUEUE, connections.broker, functions=FUNCTIONS, context=context, signals=False)
    thread = threading.Thread(target=worker.work)
    thread.start()
    try:
        trainer = worked.connections("trainer")
        servers.wait_until(lambda: live_workers(trainer.broker, HASH_QUEUE), what="the worker to be at work")
        assert Cycle(IndexHandle(trainer.client, "mine"), trainer.broker).rollback(1).live == 3
    finally:
        worker.stop()
        thread.join()
    assert {what for what, _ in refusals(worked)} <= {"client|setinfo", "sh:{other}:settings"}


@pytest.mark.parametrize("role", [*ROLES, *(f"all-{role}" for role in ROLES)])
def test_no_role_may_touch_the_server_or_the_keys_of_others(guarded: Guarded, role: str) -> None:
    for command in (
        *("FLUSHALL", "FLUSHDB", "SWAPDB 0 1", "SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "SLAVEOF h 1", "SAVE", "BGSAVE"),
        *("CONFIG GET *", "CONFIG SET dir /tmp", "DEBUG SLEEP 0", "MODULE LOAD x", "MODULE LIST", "MONITOR", "SYNC"),
        *("ACL LIST", "ACL WHOAMI", "ACL SETUSER x on", "ACL LOAD", "CLIENT LIST", "CLIENT KILL 1:1", "CLIENT PAUSE 9"),
        *("KEYS *", "RANDOMKEY", "DBSIZE", "MIGRATE h 1 k 0 1", "RESTORE k 0 v", "DUMP k", "OBJECT FREQ k"),
        *("SCRIPT LOAD x", "SCRIPT FLUSH", "SCRIPT KILL", "FUNCTION LOAD x", "FUNCTION LIST", "FCALL f 0"),
        *("PUBLISH rq:pubsub:x y", "SUBSCRIBE x", "LATENCY RESET", "SLOWLOG GET", "CLUSTER RESET", "BGREWRITEAOF"),
        *(
            "GET session:1",
            "SET session:1 x",
            "EVAL x 1 session:1",
            "LRANGE rq:queue:mail 0 1",
            "RPUSH rq:queue:mail x",
        ),
    ):
        assert not guarded.allows(role, *command.split()), command
    assert guarded.allows(role, "SCAN", 0) == role.endswith("owner")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_limited_to_one_index_may_touch_no_other(guarded: Guarded, role: str) -> None:
    commands = (
        *("GET sh:{other}:settings", "HMGET sh:{other:0}:records i1", "MGET sh:{other:0}:value:1"),
        *("SET sh:{other}:batch:b x", "EVALSHA x 1 sh:{other}:pending", "EVAL x 1 sh:{other:0}:state"),
        *("GET sh:{mine2}:settings", "GET sh:{min}:settings", "HSET sh:{mine-2:0}:records i x"),
    )
    for command in commands:
        assert not guarded.allows(role, *command.split()), command
    assert guarded.allows(f"all-{role}", "GET", "sh:{other}:settings")


@pytest.mark.parametrize(
    ("role", "commands"),
    [
        (
            "reader",
            (
                *(
                    "SET sh:{mine}:settings x",
                    "HSET sh:{mine:0}:records i x",
                    "DEL sh:{mine}:plan",
                    "SADD sh:indexes x",
                ),
                *("EVAL x 1 sh:{mine}:pending", "EVALSHA x 1 sh:{mine:0}:records", "EXPIRE sh:{mine}:plan 1"),
                *("RPUSH rq:queue:stream-hash x", "HGETALL rq:job:mine-b-4", "GETDEL sh:{mine}:plan"),
            ),
        ),
        (
            "producer",
            (
                *(
                    "GET sh:{mine:0}:value:1",
                    "MGET sh:{mine:0}:value:1",
                    "HGETALL sh:{mine:0}:records",
                    "GET sh:{mine}:plan",
                ),
                *("GET sh:{mine}:batch:b", "SET sh:{mine}:batch:b x GET", "GET sh:{mine}:model:1", "SADD sh:indexes x"),
                *("SUNION sh:{mine:0}:bucket:1:0:1", "SET sh:{mine}:settings x", "HSET sh:{mine:0}:state live 7"),
                *("DEL sh:{mine}:pending", "EVAL x 1 sh:{mine:0}:state", "HSET rq:job:other-b-5 data x"),
                *("HSET rq:job:mine-2-b-6 data x", "HGETALL rq:job:mine-b-4", "RPUSH rq:queue:stream-hash-train x"),
            ),
        ),
        (
            "worker",
            (
                *(
                    "SET sh:{mine}:settings x",
                    "SET sh:{mine}:plan x",
                    "SET sh:{mine}:learner x",
                    "LPUSH sh:{mine}:runs x",
                ),
                *(
                    "INCRBY sh:{mine}:sequence 1",
                    "SADD sh:indexes x",
                    "SREM sh:indexes mine",
                    "SET sh:{mine}:answer:r x",
                ),
                *("RPUSH rq:queue:stream-hash-train x", "EVAL x 1 sh:{mine}:trainer"),
            ),
        ),
        (
            "trainer",
            (
                *(
                    "SET sh:{mine}:settings x",
                    "SET sh:{mine}:batch:b x",
                    "ZREM sh:{mine}:pending b",
                    "SADD sh:indexes x",
                ),
                *(
                    "INCRBY sh:{mine}:sequence 1",
                    "LRANGE rq:queue:mail 0 1",
                    "HDEL sh:{mine}:dead 1",
                    "MSET sh:{mine:0}:value:1 x",
                ),
                *(
                    "LMOVE rq:queue:stream-hash rq:queue:stream-hash:intermediate LEFT RIGHT",
                    "RPUSH rq:queue:stream-hash x",
                ),
            ),
        ),
        (
            "owner",
            ("SUNION sh:{mine:0}:bucket:1:0:1 session:1", "DEL sh:indexes", "RENAME sh:{mine}:settings session:1"),
        ),
    ],
)
def test_a_role_may_not_do_the_work_of_another(guarded: Guarded, role: str, commands: tuple[str, ...]) -> None:
    for command in commands:
        assert not guarded.allows(role, *command.split()), command


def test_a_script_may_do_what_its_caller_may_whatever_keys_it_is_given(worked: Guarded) -> None:
    with worked.client("reader") as reader, worked.client("producer") as producer:
        assert reader.eval("return redis.call('GET', 'sh:{mine}:sequence')", 1, "sh:{mine:0}:records")
        for client, key, call in (
            (reader, "sh:{mine:0}:records", "'DEL', KEYS[1]"),
            (reader, "sh:{mine:0}:records", "'SET', 'sh:{mine}:settings', 'x'"),
            (reader, "sh:{mine:0}:records", "'GET', 'sh:{other}:settings'"),
            (reader, "sh:{mine:0}:records", "'KEYS', '*'"),
            (producer, "sh:{mine}:pending", "'DEL', KEYS[1]"),
            (producer, "sh:{mine}:pending", "'GET', 'sh:{mine:0}:value:1'"),
            (producer, "sh:{mine}:pending", "'SET', 'sh:{mine}:batch:b', 'x', 'GET'"),
        ):
            with pytest.raises(redis.ResponseError, match=r"permission|can't (run|access)"):
                client.eval(f"return redis.call({call})", 1, key)
        with pytest.raises(NoPermissionError):
            reader.flushall()


def test_what_an_account_may_not_do_is_told_with_the_remedy(worked: Guarded) -> None:
    with pytest.raises(ServerRefusedError, match="does not let this user do that") as caught:
        Index("mine", worked.connections("reader")).delete(["i1"])
    assert "stream-hash acl" in caught.value.remedy


def test_whoever_may_not_scan_drops_nothing_half_way(guarded: Guarded) -> None:
    guarded.admin.execute_command("ACL", "SETUSER", "unscanning", "on", f">{PASSWORD}", "~*", "+@all", "-scan")
    connections = guarded.connections("unscanning")
    with pytest.raises(ServerRefusedError, match="does not let this user do that"):
        Index.drop("other", connections)
    assert Index("other", connections).settings == SETTINGS


def test_a_user_without_a_password_lets_nobody_in(guarded: Guarded) -> None:
    for line in (acl_user("reader", prefix="closed-"), default_user().replace("default", "closed-default", 1)):
        name, *words = line.split(" ")[1:]
        guarded.admin.execute_command("ACL", "SETUSER", name, *words)
        for password in ("", "x", "closed-reader"):
            with pytest.raises(redis.AuthenticationError):
                guarded.admin.execute_command("AUTH", name, password)


def test_a_password_that_can_be_guessed_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="has 15 characters") as caught:
        acl_user("reader", password="fifteen-letters")  # noqa: S106 - it is refused
    assert "fifteen-letters" not in f"{caught.value} {caught.value.why} {caught.value.remedy}"
    assert PASSWORD not in acl_user("reader", password=PASSWORD)
    for wrong in ({"role": "root"}, {"role": "reader", "index": "a} ~*"}, {"role": "reader", "prefix": "x ~* "}):
        with pytest.raises(UsageError):
            acl_user(**wrong)  # type: ignore[arg-type]  # mypy takes the values for any of the arguments


def test_the_lines_are_a_file_that_a_server_starts_with(tmp_path: Path) -> None:
    lines = [default_user(PASSWORD), *(acl_user(role, password=PASSWORD) for role in ROLES)]
    (tmp_path / "users.acl").write_text("\n".join(lines) + "\n")
    with (
        servers.running_server(
            servers.path_redis_binary(), tmp_path, password=PASSWORD, aclfile=tmp_path / "users.acl"
        ) as url,
        redis.Redis.from_url(url, username="reader", password=PASSWORD) as reader,
    ):
        assert reader.ping()
        with pytest.raises(ServerUnreachableError, match="refuses the user or password"):
            connect(url)


def test_readers_and_owners_of_a_cluster(cluster_url: str) -> None:
    with connect(cluster_url) as admin:
        for role in ("reader", "owner"):
            words = acl_user(role, prefix="c-", password=PASSWORD).split(" ")[1:]
            admin.execute_command("ACL SETUSER", *words, target_nodes=admin.ALL_NODES)
        try:
            x, _ = digits()
            place = cluster_url.removeprefix("redis://")
            owner, reader = (
                Connections(connect(f"redis://c-{role}:{PASSWORD}@{place}"), None) for role in ("owner", "reader")
            )
            Index.create("clustered", SETTINGS, owner, sample=x[:100]).label(["i1"], [1])
            index = Index("clustered", reader)
            assert index.query(x[:2])
            assert index.verify().violations == []
            with pytest.raises(ServerRefusedError):
                index.delete(["i1"])
            with pytest.raises(ServerRefusedError):
                Index.drop("clustered", reader)
            said = [finding.level for finding in server.findings(reader.client, "") if finding.check == "cluster"]
            assert said == [OK, OK, OK]
            assert Index.drop("clustered", owner) > 0
        finally:
            admin.execute_command("ACL DELUSER", "c-owner", "c-reader", target_nodes=admin.ALL_NODES)
            admin.flushall(target_nodes=admin.PRIMARIES)


def test_an_index_of_others_is_left_to_them_and_told_of_once(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    connections = guarded.connections("worker")
    context, trainers = Context(connections), Trainers(guarded.connections("trainer"))
    for _ in range(2):
        context.sweep()
        trainers.look()
        assert apply_overdue(context) == 0
    of_others = [record.levelname for record in caplog.records if "index other" in record.getMessage()]
    assert of_others == ["WARNING", "WARNING"]

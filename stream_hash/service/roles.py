"""The accounts of a deployment, each with no more of the server than its work takes.

Rules
1. A role is what it may read, and beside that selectors (Redis 7.0): commands and keys that belong together. A command
   is allowed if one of them allows it with all its keys; none gives the commands of another its keys.
2. Scripts run with the rights of who calls them: each command in one is checked, and so is each key, named or built.
   What is said here of a key therefore holds for scripts as well, whatever their text.
3. The keys that a script is called with count as written, whatever it does. They stand in a selector that allows
   nothing but scripts, where the rest of the role does not write them anyway.
4. Nobody gets a category of commands (`+@read`): what a newer server adds to one is not ours to give.
5. Never given: KEYS, CONFIG, ACL, SCRIPT, FUNCTION, DEBUG, MODULE, FLUSHALL, FLUSHDB, REPLICAOF, SHUTDOWN, MONITOR,
   and channels. SCAN is the owner's alone, whose `drop` has to find all that an index may have left: no pattern limits
   SCAN, so an owner sees the names of all keys of the server, and the values of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from stream_hash.errors import UsageError
from stream_hash.queue import HASH_QUEUE, TRAIN_QUEUE, patterns
from stream_hash.settings import check_name
from stream_hash.storage.keys import IMPORTS, INDEXES

LEAST_PASSWORD: Final = 16
"""Characters of a password. A server keeps its SHA-256 without a salt, so whoever reads the file can try out words."""

CONNECT: Final = "hello ping select info time multi exec command cluster|slots cluster|shards"
"""What a client needs that touches no key; the last three on a cluster."""

READS: Final = (
    "get mget getrange strlen getbit bitcount exists type memory|usage "
    "hget hmget hgetall hkeys hvals hlen hscan hexists hstrlen "
    "lrange llen lindex smembers scard sismember sunion "
    "zscore zmscore zcard zcount zrange zrangebyscore zrevrangebyscore cluster|info"
)
SCRIPTS: Final = "eval evalsha"
GENERATION_WRITES: Final = "set setrange setbit unlink hset hdel hincrby sadd srem rpush"
ITEM_WRITES: Final = f"{GENERATION_WRITES} mset lpop zadd zrem"
QUEUE_WRITES: Final = (
    "set del expire persist rename hset hincrby hincrbyfloat sadd srem xadd "
    "rpush lmove blmove lrem zadd zrem zremrangebyscore"
)


@dataclass(frozen=True)
class Grant:
    """Commands, and the keys on which they are allowed. reads, writes, keys : patterns, the last for both."""

    commands: str
    keys: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def __str__(self) -> str:
        patterns_of = (("~", self.keys), ("%R~", self.reads), ("%W~", self.writes))
        keys = [sign + key for sign, some in patterns_of for key in dict.fromkeys(some)]
        return " ".join([*(f"+{command}" for command in dict.fromkeys(self.commands.split())), *keys])


@dataclass(frozen=True)
class Scope:
    """The keys of one index, or of all."""

    index: str | None

    def of_index(self, names: str) -> tuple[str, ...]:
        """Keys of the index as a whole, by what follows its prefix."""
        return tuple(f"sh:{{{self.index or '*'}}}:{name}" for name in names.split())

    def of_items(self, names: str) -> tuple[str, ...]:
        """Keys of its partitions."""
        return tuple(f"sh:{{{self.index or '*'}:*}}:{name}" for name in names.split())


def _reads(scope: Scope, *queues: str) -> Grant:
    """All of an index, who works the queues, and how many jobs wait."""
    everything = (*scope.of_index("*"), *scope.of_items("*"))
    waiting = (patterns.queue(HASH_QUEUE), patterns.queue(TRAIN_QUEUE))
    seen = (INDEXES, IMPORTS, *waiting, *patterns.workers_of(HASH_QUEUE, TRAIN_QUEUE))
    own = [key for name in queues for key in patterns.looked_at(name)]
    return Grant(f"{CONNECT} {READS}", reads=(*everything, *seen, *own))


def _reader(scope: Scope) -> list[Grant]:
    # Two scripts only read: ids and records of candidates for a filter, and a worker's sign of life.
    return [_reads(scope), Grant("eval", (*scope.of_items("records"), *patterns.workers_of()))]


def _producer(scope: Scope) -> list[Grant]:
    seen = (*scope.of_index("settings pending receipt:* dead"), *scope.of_items("state"), INDEXES)
    alive = patterns.workers_of(HASH_QUEUE)
    return [
        Grant(f"{CONNECT} get exists hmget hkeys zscore zmscore zcard type hstrlen smembers", reads=(*seen, *alive)),
        Grant(SCRIPTS, (*scope.of_index("pending"), *patterns.workers_of())),
        # Only written: a payload cannot be read back, nor another producer's.
        Grant(
            "set hset zadd zrem incrby hincrby",
            scope.of_index("sequence counters tallies"),
            writes=scope.of_index("pending leases sizes arrived batch:*"),
        ),
        Grant(
            "del hset sadd rpush",
            writes=(*patterns.jobs_of(scope.index), patterns.QUEUES, patterns.queue(HASH_QUEUE)),
        ),
    ]


def _worker(scope: Scope) -> list[Grant]:
    called = (*scope.of_items("state"), *scope.of_index("pending generations model:* quality"))
    return [
        _reads(scope, HASH_QUEUE),
        Grant(SCRIPTS, (*called, *patterns.taken(HASH_QUEUE))),
        Grant(ITEM_WRITES, scope.of_items("*")),
        Grant(
            "set unlink hset hdel hincrby zadd zrem zremrangebyrank zremrangebyscore",
            # trainer: live figures that fell ask for training
            scope.of_index(
                "pending leases sizes arrived attempts begun failures receipt:* batch:* dead held counters "
                "tallies figures quality generations model:* trainer"
            ),
        ),
        Grant(QUEUE_WRITES, tuple(patterns.worked(HASH_QUEUE))),
    ]


def _trainer(scope: Scope) -> list[Grant]:
    called = (*scope.of_items("state"), *scope.of_index("trainer quality pending settings"))
    return [
        _reads(scope, TRAIN_QUEUE),
        Grant(SCRIPTS, (*called, *patterns.taken(TRAIN_QUEUE), *patterns.workers_of())),
        Grant(GENERATION_WRITES, scope.of_items("*")),
        Grant(
            "set del unlink hset hdel hincrby lpush ltrim zremrangebyscore",
            scope.of_index("trainer learner runs progress figures quality generations model:* answer:* plan"),
        ),
        Grant(QUEUE_WRITES, tuple(patterns.worked(TRAIN_QUEUE))),
        Grant("lpush", writes=(patterns.queue(HASH_QUEUE),)),
    ]


def _owner(scope: Scope) -> list[Grant]:
    queues = (*patterns.worked(HASH_QUEUE), *patterns.worked(TRAIN_QUEUE))
    writes = f"{ITEM_WRITES} {QUEUE_WRITES} incrby lpush ltrim zremrangebyrank"
    return [
        _reads(scope, HASH_QUEUE, TRAIN_QUEUE),
        Grant(f"{SCRIPTS} {writes}", (*scope.of_index("*"), *scope.of_items("*"), *queues)),
        Grant("sadd srem", (INDEXES, IMPORTS)),
        Grant("scan"),
    ]


ROLES: Final[dict[str, tuple[str, Callable[[Scope], list[Grant]]]]] = {
    "reader": ("queries, and everything else that only looks", _reader),
    "producer": ("has batches accepted", _producer),
    "worker": ("hashes batches, builds chunks, sweeps", _worker),
    "trainer": ("learns, re-indexes, rolls back, saves plans", _trainer),
    "owner": ("creates, imports and drops indexes, labels and deletes at once; what the others may besides", _owner),
}
"""Each role, what it is for, and what that takes."""


def acl_user(role: str, *, index: str | None = None, prefix: str = "", password: str | None = None) -> str:
    """The line of an ACL file for a role, without its line end: `user` and the words that ACL SETUSER takes.

    index : the only index it may touch; None for all. prefix : what the user's name begins with. password : is hashed;
    without one the user is off, and no password opens it. Raises UsageError for what is no role, no name, and for a
    password that is too short.
    """
    if role not in ROLES:
        raise UsageError(f"there is no role {role!r:.80}", why=f"roles are {', '.join(ROLES)}", remedy="name one")
    scope = Scope(None if index is None else check_name(index))
    root, *selectors = ROLES[role][1](scope)
    name = prefix + role if not prefix else check_name(prefix + role, "user name")
    # reset leaves channels to the server's acl-pubsub-default
    words = ["reset", *_entry(password, role), "resetchannels", str(root), *(f"({grant})" for grant in selectors)]
    return " ".join(["user", name, *words])


def default_user(password: str | None = None) -> str:
    """The line for the user that everybody is who gives no name: all rights with a password, off without one.

    An ACL file that leaves it out lets everybody in, as everything.
    """
    return " ".join(["user default reset", *_entry(password, "default"), *(["~* &* +@all"] if password else [])])


def _entry(password: str | None, role: str) -> Iterable[str]:
    if password is None:
        return ["off"]
    if len(password) < LEAST_PASSWORD:
        raise UsageError(
            f"the password of {role} has {len(password)} characters",
            why=f"the least is {LEAST_PASSWORD}: a server keeps it as a hash that can be tried out",
            remedy="take a random one: openssl rand -hex 32",
        )
    return ["on", f"#{hashlib.sha256(password.encode()).hexdigest()}"]

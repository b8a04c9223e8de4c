"""RQ's keys as patterns of an access control list: those that ours touch, and no others.

Their prefix is RQ_KEY_PREFIX, which rq reads when it is imported. A shared server on which other applications use RQ
should give stream_hash a prefix of its own: whoever takes jobs must be able to put any malformed one aside, and so
may change every job of its prefix.
"""

from __future__ import annotations

from typing import Final

from rq.defaults import RQ_KEY_PREFIX

from stream_hash.queue.safe_queue import malformed_key

QUEUES: Final = f"{RQ_KEY_PREFIX}:queues"
"""The set of the queues' names."""


def queue(name: str) -> str:
    """The list of the ids that wait."""
    return f"{RQ_KEY_PREFIX}:queue:{name}"


def jobs_of(index: str | None) -> list[str]:
    """The hashes of the jobs of an index, or of all. The length that ends an id (sending.py) keeps `a` from `a-b`."""
    if index is None:
        return [f"{RQ_KEY_PREFIX}:job:*"]
    return [f"{RQ_KEY_PREFIX}:job:{index}-*-{len(index)}"]


def workers_of(*queues: str) -> list[str]:
    """Who works the queues, and the sign of life of each."""
    return [*(f"{RQ_KEY_PREFIX}:workers:{name}" for name in queues), f"{RQ_KEY_PREFIX}:worker:*"]


def taken(name: str) -> list[str]:
    """What scripts read and change of a queue: who waits, who was begun, and the jobs themselves."""
    return [queue(name), f"{queue(name)}:*", f"{RQ_KEY_PREFIX}:wip:{name}", f"{RQ_KEY_PREFIX}:job:*"]


def looked_at(name: str) -> list[str]:
    """What a worker of a queue reads."""
    return [*taken(name), f"{RQ_KEY_PREFIX}:failed:{name}", *workers_of(name)]


def worked(name: str) -> list[str]:
    """Everything that a worker of a queue, and who enqueues into it, changes."""
    prefix = RQ_KEY_PREFIX
    return [
        *(*looked_at(name), QUEUES, f"{prefix}:workers"),
        *(f"{prefix}:execution:*", f"{prefix}:executions:*", f"{prefix}:results:*", malformed_key("*")),
    ]

"""What each job function may be given beside an index's name. Whatever is anything else is no job of ours.

A job's second argument is a short text that anybody may have written. Here stands, function by function, what it can
be, down to the bounds of each number; a worker sees it only when it has passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from stream_hash.errors import UsageError
from stream_hash.settings import MAX_PARTITIONS, NUMBER_BITS, check_name

APPLY_BATCH: Final = "stream_hash.jobs.apply_batch"
"""Given a batch id. What a producer asks a hash worker for."""

BUILD_CHUNK: Final = "stream_hash.jobs.build_chunk"
"""Given `partition:generation:chunk`. What a trainer asks a hash worker for."""

TRAIN: Final = "stream_hash.jobs.train"
"""Given a request: JSON of its id and a plan. What the command line asks a trainer for."""

LEARNERS: Final = ("pa", "ridge", "svm", "mlp")
MAX_ITEMS: Final = 1_000_000
"""Of a training window: what memory and an hour still allow."""

MAX_CHUNKS: Final = 2 ** (NUMBER_BITS - 10)
"""Chunks of 1,024 item numbers in a full partition."""

_CHUNK: Final = re.compile(r"([0-9]{1,4}):([0-9]{1,9}):([0-9]{1,5})", re.ASCII)


class ChunkArgument(NamedTuple):
    """A chunk of a partition, and the generation it is built for."""

    partition: int
    generation: int
    chunk: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.generation}:{self.chunk}"


class TrainArgument(NamedTuple):
    """A request to train. request : its id. plan : fields of the plan, checked; those left out have their defaults."""

    request: str
    plan: dict[str, Any]

    def __str__(self) -> str:
        return json.dumps({"request": self.request, **self.plan}, sort_keys=True, allow_nan=False)


def chunk_of(text: str) -> ChunkArgument:
    """The chunk that `text` names. Raises UsageError."""
    found = _CHUNK.fullmatch(text)
    chunk = ChunkArgument(*map(int, found.groups())) if found else None
    if chunk is None or str(chunk) != text:  # leading zeros would be a second name for the same chunk
        raise _refused(text, "it is no partition:generation:chunk")
    for what, number, low, beyond in (
        ("partition", chunk.partition, 0, MAX_PARTITIONS),
        ("generation", chunk.generation, 1, 10**9),
        ("chunk", chunk.chunk, 0, MAX_CHUNKS),
    ):
        if not low <= number < beyond:
            raise _refused(text, f"its {what} is {number}, which must be from {low} to {beyond - 1}")
    return chunk


def training_of(text: str) -> TrainArgument:
    """The request that `text` is. Raises UsageError."""
    try:
        fields = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise _refused(text, f"it is no JSON object: {error}") from error
    if not isinstance(fields, dict):
        raise _refused(text, "it is no JSON object")
    request = check_name(fields.pop("request", None), "request")
    for name, value in fields.items():
        if name not in PLAN:
            raise _refused(text, f"a plan has no {name!r:.80}")
        if not PLAN[name](value):
            raise _refused(text, f"{name} is {value!r:.80}")
    return TrainArgument(request, fields)


def check_argument(function: str, argument: str) -> str:
    """`argument` itself, when `function` may be given it; of an unknown function, when it is a name.

    Raises UsageError.
    """
    if function == BUILD_CHUNK:
        chunk_of(argument)
    elif function == TRAIN:
        training_of(argument)
    else:
        check_name(argument, "batch id")
    return argument


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _share(value: object) -> bool:
    """Whether it is a number from 0 up to 1. True and NaN are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


PLAN: Final[Mapping[str, Callable[[Any], bool]]] = {
    "learner": lambda value: isinstance(value, str) and value in LEARNERS,
    "window": _whole(1, MAX_ITEMS),
    "least": _whole(1, MAX_ITEMS),
    "held_out": _whole(1, MAX_ITEMS),
    "margin": _share,
    "force": lambda value: isinstance(value, bool),
    "dry_run": lambda value: isinstance(value, bool),
    "unlabelled": lambda value: isinstance(value, bool),
}
"""The fields of a plan (service/training_plan.py), and which values each may have."""


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _refused(text: str, why: str) -> UsageError:
    return UsageError(f"a job's argument is {text!r:.80}", why=why, remedy="ask by the command line")

"""Job hashes that somebody makes up, without end, from a seed. Whatever they are, none names a batch of ours."""

from __future__ import annotations

import json
import pickle
import random
import zlib
from collections.abc import Iterator
from typing import Any

from stream_hash.queue import APPLY_BATCH, BUILD_CHUNK, HASH_QUEUE, TRAIN
from tests.workers import sentinel

DATE = "2026-01-02T03:04:05.000006Z"
NAMES = (
    *(APPLY_BATCH, BUILD_CHUNK, TRAIN, "tests.workers.sentinel.ring", "os.system", "builtins.eval", "builtins.exec"),
    *("subprocess.run", "stream_hash.jobs.FUNCTIONS.clear", "", " ", "__main__", "posix.system", "os\u200b.system"),
)
CALLBACKS = (
    "success_callback_name",
    "failure_callback_name",
    "stopped_callback_name",
    "serializer",
    "meta",
    "webhooks",
)


def hostile_jobs(seed: int) -> Iterator[dict[str, Any]]:
    """Hashes of which none is a good job: one of the fields that are read is wrong, and any of the others may be."""
    rng = random.Random(seed)
    while True:
        fields: dict[str, Any] = {
            "created_at": DATE,
            "data": zlib.compress(json.dumps([APPLY_BATCH, None, ["items", "b1"], {}]).encode()),
            "origin": HASH_QUEUE,
            "status": "queued",
            "timeout": "120",
            "retries_left": "3",
        }
        kind = rng.choice(("data", "data", "data", "status", "timeout", "retries_left", "created_at"))
        fields[kind] = _data(rng) if kind == "data" else _other(rng, kind)
        for name in rng.sample(CALLBACKS, rng.randrange(4)):
            fields[name] = rng.choice(
                (sentinel.__name__ + ".ring", pickle.dumps(sentinel.Pickled()), "http://127.0.0.1:9")
            )
        yield fields


def _data(rng: random.Random) -> bytes:
    """What a job is to call, as it must not be."""
    return rng.choice(WAYS)(rng)


def _packed(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def _another_function(rng: random.Random) -> bytes:
    return _packed([rng.choice(NAMES[1:]), None, ["items", _text(rng)], {}])


def _other_arguments(rng: random.Random) -> bytes:
    return _packed([APPLY_BATCH, None, _value(rng, 3), {"a": _value(rng, 2)}])


def _no_call(rng: random.Random) -> bytes:
    return _packed({"call": _value(rng, 4)})


def _cut_short(rng: random.Random) -> bytes:
    whole = _packed([APPLY_BATCH, None, ["items", "b1"], {}])
    return whole[: rng.randrange(1, len(whole) - 4)]


def _pickle(rng: random.Random) -> bytes:
    return zlib.compress(pickle.dumps((NAMES[3], None, (sentinel.Pickled(),), {}), protocol=rng.randrange(6)))


def _deep(rng: random.Random) -> bytes:
    return zlib.compress(b"[" * rng.randrange(5_000, 200_000))


def _noise(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 4_000))


def _no_name(rng: random.Random) -> bytes:
    return _packed([APPLY_BATCH, None, [rng.choice(("a}b", "../..", "", "a:b", "x" * 65, "\ud800")), "b1"], {}])


WAYS = (_another_function, _other_arguments, _no_call, _cut_short, _pickle, _deep, _noise, _no_name)


def _other(rng: random.Random, kind: str) -> str | bytes:
    wrong = {
        "status": ("", "Queued", "done", "queued\0", "started ", "0"),
        "timeout": ("0", "-1", "3601", "1e3", " 120", "1_0", "9" * 4_000, "None", "120.0"),
        "retries_left": ("-1", "101", "+1", "1e1", "0x1", "NaN", "9" * 200, "١"),
        "created_at": ("", "now", "2026-13-01T00:00:00.000000Z", "2026-01-02", DATE + DATE, "0" * 5_000),
    }[kind]
    # An empty count of retries is none, and no fault.
    return rng.choice((*wrong, rng.randbytes(rng.randrange(1, 40)) + b"\xff"))


def _text(rng: random.Random) -> str:
    return "".join(
        chr(rng.choice((rng.randrange(32), rng.randrange(32, 127), rng.randrange(128, 0x2FFF)))) for _ in range(9)
    )


def _value(rng: random.Random, depth: int) -> Any:
    """Some JSON that is no pair of names."""
    if depth == 0 or rng.random() < 0.3:
        return rng.choice((None, True, 0, -1, 1e300, 2**70, "", "a" * 200, "\u202e", [], {}))
    if rng.random() < 0.5:
        return [_value(rng, depth - 1) for _ in range(rng.choice((0, 1, 3, 4)))]
    return {rng.choice(NAMES): _value(rng, depth - 1) for _ in range(rng.randrange(3))}

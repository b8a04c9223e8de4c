"""Job hashes that are none of ours, without end, each of which would like something of its own to be run."""

from __future__ import annotations

import json
import pickle
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.chaos.canary import NAME, Pickled
from tests.workers.test_attacks import SET_ASIDE, call, job_hash

_BESIDE: dict[str, Any] = {
    "success_callback_name": NAME,
    "failure_callback_name": NAME,
    "stopped_callback_name": NAME,
    "meta": pickle.dumps(Pickled()),
    "result": pickle.dumps(Pickled()),
    "exc_info": zlib.compress(pickle.dumps(Pickled())),
    "dependency_ids": json.dumps(["gone"]),
    "repeats_left": "9",
}
"""What the other fields may be: RQ would run some of these."""

_CALLS: dict[str, dict[str, Any]] = {
    "a call of the canary": job_hash(data=call(NAME)),
    "a call of the canary with other arguments": job_hash(data=call(NAME, None, [1, {"a": 2}])),
    "a pickled canary": job_hash(data=zlib.compress(pickle.dumps((NAME, None, (Pickled(),), {})))),
    "a pickled canary, not compressed": job_hash(data=pickle.dumps(Pickled())),
}


def bad_jobs(rng: np.random.Generator) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is wrong with it, and the hash. Each kind as often as the others, with something of `_BESIDE`, or none."""
    kinds = list((SET_ASIDE | _CALLS).items())
    while True:
        for what, fields in kinds:
            some = [name for name in _BESIDE if rng.random() < 0.2]
            beside = {name: _BESIDE[name] for name in some}
            noise = {f"field-{n}": rng.bytes(int(rng.integers(1, 50))) for n in range(int(rng.integers(3)))}
            yield what, {**beside, **noise, **fields}

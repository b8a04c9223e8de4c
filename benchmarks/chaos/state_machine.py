"""An index against a dictionary, in random orders of what may be done to it (tests/faults/index_machine.py)."""

from __future__ import annotations

import time
from typing import Any

import redis

from benchmarks.report import table
from benchmarks.services import running_server
from tests.faults import index_machine


def measure(examples: int, steps: int, *, seed: int) -> dict[str, Any]:
    """seed : of hypothesis; 0 for the examples that are always the same."""
    start, done = time.perf_counter(), dict[str, int]()
    with running_server() as url, redis.Redis.from_url(url) as client:
        failure = ""
        try:
            done = dict(index_machine.run(client, examples=examples, steps=steps, seed=seed or None))
        except Exception as error:  # noqa: BLE001 - a difference may show as anything
            failure = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    missed = [way for way in index_machine.WAYS if not done.get(way)]
    return {
        "in_order": not failure and not missed,
        "most_steps": steps,
        "seconds": time.perf_counter() - start,
        "done": done,
        "never_done": missed,
        "difference": failure,
    }


def tables(result: dict[str, Any]) -> list[str]:
    rows = [
        ("what was done", "times"),
        *((name, f"{count:,}") for name, count in result["done"].items()),
        ("of these ways never (target: 0)", f"{len(result['never_done']):,}"),
        ("differences (target: 0)", "1" if result["difference"] else "0"),
    ]
    return [table(rows), *([result["difference"]] if result["difference"] else [])]

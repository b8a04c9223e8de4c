"""What a query costs beside what cannot be done without: five ratios, each of two things timed in turn.

a  a query by the default budget, and the same reads issued bare: one SUNION, one MGET (query_plans.py)
b  64 queries one by one, and the same as one batch; and so with 100 vectors fetched of each
c  `stream-hash query` of one vector in a process of its own, and a process that imports redis and numpy
d  a query by radius, and the tutorial's loop over its table in this process's memory: every code of the ball made by
   flipping bits and looked up in a dict, the vectors found ranked by numpy. It has no server and no other writer
e  queries a second of two processes, and of one

The model is GRH's (query_plans.py). Medians of ratios; least and greatest of what was repeated a few times.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import combinations
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import click
import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.dataset import Dataset, load_dataset
from benchmarks.query_plans import BATCH, TRIALS, K, bare_reads, grh, one_by_one, reads_of, timed
from benchmarks.report import Spread, machine, progress, publish, table
from benchmarks.services import running_server
from benchmarks.startup import command, in_turn
from stream_hash.client import Index
from stream_hash.numerics.model import Model
from stream_hash.service.connections import Connections
from stream_hash.service.evaluate import temporary_index

RADII = (2, 8)
_begin: Barrier
"""Of a process of e: where it waits until the others can begin, too."""
PATIENCE_SECONDS = 60.0


def measure(data: Dataset, queries: int, repetitions: int, seconds: float) -> dict[str, Any]:
    """All figures of this benchmark. seconds : for which the processes of e ask."""
    vectors = data.queries[:queries]
    with running_server() as url, redis.Redis.from_url(url) as client:
        progress("learning, and filling the index")
        model = grh(data)
        with temporary_index(client, model, data.items, settings=TRIALS[0].settings) as handle:
            index = Index(handle.name, url)
            index.query(vectors[0], K)
            progress("a: against the bare reads")
            result: dict[str, Any] = {"bare": _against_bare(index, client, vectors)}
            progress("b: batches")
            result["batches"] = {
                name: asdict(_batches(index, vectors, plan))
                for name, plan in (("default", {}), ("fetch 100", {"fetch": 100}))
            }
            progress("c: processes that ask once")
            result["cold"] = _cold(index, url, vectors[0], repetitions)
            progress("d: the tutorial's loop")
            result["radii"] = _against_loop(index, model, data.items, vectors)
            progress("e: two processes")
            rates = [_rates(url, index.name, vectors, seconds) for _ in range(repetitions)]
            result["two_processes"] = {
                "queries_per_second": float(np.median([one for one, _ in rates])),
                "ratio": asdict(Spread.of([two / one for one, two in rates])),
            }
        return {
            "machine": machine(client),
            "data": data.source,
            "items": len(data.items),
            "queries": len(vectors),
            "repetitions": repetitions,
            **result,
        }


def _compared(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Milliseconds, medians and tenth percentiles, and their ratios. The tenth are those that nothing disturbed."""
    low = [float(np.percentile(np.array(seconds) * 1e3, 10)) for seconds in (ours, theirs)]
    return {
        "milliseconds": float(np.median(ours)) * 1e3,
        "theirs": float(np.median(theirs)) * 1e3,
        "ratio": float(np.median(np.array(ours) / np.array(theirs))),
        "ratio_of_tenth_percentiles": low[0] / low[1],
    }


def _against_bare(index: Index, client: Any, vectors: NDArray[np.float32]) -> dict[str, dict[str, float]]:
    reads = [reads_of(index, vector, {}) for vector in vectors]
    whole: list[float] = []
    without: list[float] = []
    bare: list[float] = []
    for vector, keys in zip(vectors, reads, strict=True):
        timed(bare, partial(bare_reads, client, *keys))
        timed(whole, partial(index.query, vector, K))
        timed(without, partial(index.query, vector, K, records=False))
    return {"query": _compared(whole, bare), "without_records": _compared(without, bare)}


def _batches(index: Index, vectors: NDArray[np.float32], plan: dict[str, Any]) -> Spread:
    """How many times as many queries a second a batch of 64 answers."""
    ratios = []
    for start in range(0, max(1, len(vectors) - BATCH + 1), BATCH):
        some, single, batch = vectors[start : start + BATCH], list[float](), list[float]()
        timed(single, partial(one_by_one, index, some, plan))
        timed(batch, partial(index.query, some, K, **plan))
        ratios.append(single[0] / batch[0])
    return Spread.of(ratios)


def _cold(index: Index, url: str, vector: NDArray[np.float32], repetitions: int) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, vector[None])
        file.flush()
        ask = [*command(), "query", index.name, "--vectors", file.name, "--json", "--url", url]
        ours, theirs, ratio = in_turn(ask, [sys.executable, "-c", "import redis, numpy"], repetitions)
    return {"query_seconds": asdict(ours), "import_seconds": asdict(theirs), "ratio": asdict(ratio)}


def _against_loop(
    index: Index, model: Model, items: NDArray[np.float32], vectors: NDArray[np.float32]
) -> list[dict[str, Any]]:
    loop = _Loop(model, items)
    rows = []
    for radius in RADII:
        ours: list[float] = []
        theirs: list[float] = []
        some = vectors if radius < 5 else vectors[:20]  # of a radius of 8 a query ranks thousands
        for vector in some:
            found = timed(theirs, partial(loop.query, vector, radius))
            (answer,) = timed(ours, partial(index.query, vector, K, radius=radius, widen=False))
            if {result.id for result in answer.results} != set(map(str, found)):
                raise RuntimeError(f"the loop finds other items than the index: {found}")
        rows.append({"radius": radius, "queries": len(some), **_compared(ours, theirs)})
    return rows


class _Loop:
    """The tutorial's search: a dict of codes, and a loop over the ball."""

    def __init__(self, model: Model, items: NDArray[np.float32]) -> None:
        self._model, self._items, self._bits = model, items, model.bits
        self._powers = 1 << np.arange(model.bits - 1, -1, -1)
        self._table: dict[int, list[int]] = {}
        for row, code in enumerate(model.encode(items).codes[:, 0].tolist()):
            self._table.setdefault(code, []).append(row)

    def query(self, vector: NDArray[np.float32], radius: int) -> list[int]:
        """Rows of the nearest candidates: vectors are of unit length."""
        bits = self._model.encode_queries(vector[None]).margins[0] >= 0
        candidates: set[int] = set()
        for flips in range(radius + 1):
            for flipped in combinations(range(self._bits), flips):
                near = bits.copy()
                near[list(flipped)] ^= True
                candidates.update(self._table.get(int(near.dot(self._powers)), ()))
        rows = np.array(sorted(candidates), dtype=np.intp)
        return [int(row) for row in rows[np.argsort(-(self._items[rows] @ vector))[:K]]]


def _rates(url: str, name: str, vectors: NDArray[np.float32], seconds: float) -> tuple[float, float]:
    """Queries a second of one process, and of two at the same time."""
    context = multiprocessing.get_context("spawn")
    rates = []
    for processes in (1, 2):
        with context.Pool(processes, initializer=_wait_at, initargs=(context.Barrier(processes),)) as pool:
            asked = [pool.apply_async(_ask, (url, name, vectors, seconds)) for _ in range(processes)]
            rates.append(sum(one.get() for one in asked))
    return rates[0], rates[1]


def _wait_at(barrier: Barrier) -> None:
    global _begin  # noqa: PLW0603 - what an initializer of a pool leaves, it leaves here
    _begin = barrier


def _ask(url: str, name: str, vectors: NDArray[np.float32], seconds: float) -> float:
    index = Index(name, Connections.open(url))
    index.query(vectors[0], K)
    _begin.wait(PATIENCE_SECONDS)
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds:
        index.query(vectors[count % len(vectors)], K)
        count += 1
    return count / spent


def _tables(result: dict[str, Any]) -> list[str]:
    def ratios(row: dict[str, float]) -> tuple[str, ...]:
        names = ("milliseconds", "theirs", "ratio", "ratio_of_tenth_percentiles")
        return tuple(f"{row[name]:.2f}" for name in names)

    def spread(values: dict[str, float]) -> str:
        return Spread(**values).shown(2)

    cold, two = result["cold"], result["two_processes"]
    paired = [
        ("p50, milliseconds", "ours", "theirs", "median ratio", "of 10th percentiles"),
        ("a: query, and bare SUNION + MGET (target: at most 1.2)", *ratios(result["bare"]["query"])),
        ("a: without labels and metadata", *ratios(result["bare"]["without_records"])),
        *((f"d: radius {row['radius']}, and the tutorial's loop", *ratios(row)) for row in result["radii"]),
    ]
    rows = [
        ("measure", "median (least to greatest)"),
        ("b: batch of 64 to single queries (target: at least 3)", spread(result["batches"]["default"])),
        ("b: the same, 100 vectors fetched", spread(result["batches"]["fetch 100"])),
        ("c: stream-hash query, s", spread(cold["query_seconds"])),
        ("c: import redis, numpy, s", spread(cold["import_seconds"])),
        ("c: ratio (target: at most 2)", spread(cold["ratio"])),
        ("e: queries a second, one process", f"{two['queries_per_second']:,.0f}"),
        ("e: two processes to one (target: at least 1.7)", spread(two["ratio"])),
    ]
    head = f"{result['data']}: {result['items']:,} items, {result['queries']:,} queries"
    return [head, table(paired), table(rows)]


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--queries", type=click.IntRange(min=1), default=512, show_default=True)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True, help="Of c and e.")
@click.option("--seconds", type=click.FloatRange(min=0.01), default=2.0, show_default=True, help="The processes of e.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(
    data: Path | None, items: int | None, queries: int, repetitions: int, seconds: float, json_file: Path | None
) -> None:
    """Measure what a query costs beside what it cannot do without.

    Example: python -m benchmarks.query_cost --data Gist512CIFAR10.mat
    """
    result = measure(load_dataset(data, items), queries, repetitions, seconds)
    publish(result, _tables(result), json_file)


if __name__ == "__main__":
    main()

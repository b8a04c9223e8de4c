"""Probing every bucket against exact search and plain numpy: the same ids, in the same order.

The full-size form of `tests/service/test_search.py`: 500 queries on 20,000 items of 256 dimensions, for every
metric, with 1 and with 4 tables, on the embedded server. Ends with an error at the first difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.report import machine, progress, publish, table
from benchmarks.services import running_server
from stream_hash.client import Index
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings, Metric
from stream_hash.storage.codec import Batch

BATCH_ITEMS = 1_000
RESULTS = 10


def fill(index: Index, connections: Connections, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
    """Put items into an index from this process, without a queue."""
    handle = IndexHandle(connections.client, index.name)
    for start in range(0, len(ids), BATCH_ITEMS):
        part = slice(start, start + BATCH_ITEMS)
        handle.ledger.accept(f"from-{start}", Batch("upsert", list(ids[part]), vectors[part]), lease_until=0)
        apply_batch(handle, f"from-{start}")


def nearest(query: NDArray[np.float64], x: NDArray[np.float64], metric: Metric) -> list[int]:
    """Rows of the nearest vectors by a stable sort of all float64 scores: the oracle."""
    if metric == "l2":
        scores = -np.sqrt(((x - query) ** 2).sum(axis=1))
    else:
        scores = (x * query).sum(axis=1)
        if metric == "cosine":
            scores = scores / np.sqrt((x * x).sum(axis=1) * (query * query).sum())
    return [int(row) for row in np.argsort(-scores, kind="stable")[:RESULTS]]


def compare(metric: Metric, tables: int, items: int, queries: int, dimension: int) -> list[str]:
    """One setting compared; a row of the table. Raises click.ClickException at the first difference."""
    rng = np.random.default_rng(0)
    x = rng.normal(0.2, 1, (items, dimension)).astype(np.float32)
    asked = rng.normal(0.2, 1, (queries, dimension)).astype(np.float32)
    ids = [f"{row:08}" for row in range(items)]
    with running_server() as url:
        connections = Connections.open(url)
        settings = IndexSettings(dimension, tables=tables, metric=metric)
        index = Index.create("exactness", settings, connections)
        fill(index, connections, ids, x)
        truth = index.query(asked, RESULTS, exact=True)
        exact = x.astype(np.float64)
        for number, (query, wanted) in enumerate(zip(asked, truth, strict=True)):
            (probed,) = index.query(query, RESULTS, radius=settings.bits)
            oracle = [ids[row] for row in nearest(query.astype(np.float64), exact, metric)]
            answers = {
                "radius": [result.id for result in probed.results],
                "exact": [result.id for result in wanted.results],
            }
            for name, found in answers.items():
                if found != oracle:
                    raise click.ClickException(
                        f"{metric}, {tables} tables, query {number}: {name} {found}, not {oracle}"
                    )
    return [metric, str(tables), str(queries), str(queries)]


@click.command()
@click.option("--items", default=20_000, show_default=True)
@click.option("--queries", default=500, show_default=True)
@click.option("--dimension", default=256, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result here.")
def main(items: int, queries: int, dimension: int, json_file: Path | None) -> None:
    """Compare the ten ids of --radius 16, of --exact and of plain numpy."""
    rows = [["metric", "tables", "queries", "equal"]]
    for metric in get_args(Metric):
        for tables in (1, 4):
            progress(f"{metric}, {tables} tables")
            rows.append(compare(metric, tables, items, queries, dimension))
    result = {"machine": machine(), "items": items, "dimension": dimension, "rows": rows[1:]}
    publish(result, [table(rows)], json_file)


if __name__ == "__main__":
    main()

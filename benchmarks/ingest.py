"""Producer to searchable, against raw pipelined SET + SADD of the same bytes; and memory beside the vectors.

The two alternate, each on a fresh embedded server, so that whatever else the machine does meets both alike. The
producer, the hash workers and the server share the machine's cores.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import redis

from benchmarks.dataset import DIMENSION, Dataset, load_dataset
from benchmarks.memory import by_kind, settled_memory
from benchmarks.report import Spread, machine, progress, publish, table
from benchmarks.services import in_own_process, running_server, running_workers
from benchmarks.writers import save_items, stream_through_queue, write_raw
from stream_hash.client import Index
from stream_hash.numerics.model import lsh_model
from stream_hash.settings import IndexSettings

INDEX = "benchmark"
SETTINGS = IndexSettings(dimension=DIMENSION)
VECTOR_BYTES = 4 * DIMENSION


def measure(data: Dataset, repetitions: int, workers: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    count = len(data.items)
    queue_rates, raw_rates = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        codes = lsh_model(SETTINGS, data.training).encode(data.items).codes[:, 0]
        save_items(folder, data.items, codes, data.labels)
        plain: dict[str, Any] = {}
        for repetition in range(repetitions):
            progress(f"repetition {repetition + 1} of {repetitions}")
            with running_server() as url:
                raw_rates.append(count / in_own_process(write_raw, url, folder))
            seconds, plain = _ingest(data, folder, workers, labelled=False)
            queue_rates.append(count / seconds)
        progress("once more with labels, for memory")
        _, labelled = _ingest(data, folder, workers, labelled=True)
    ratios = [queue / raw for queue, raw in zip(queue_rates, raw_rates, strict=True)]
    return {
        "machine": plain.pop("machine"),
        "data": data.source,
        "items": count,
        "dimension": DIMENSION,
        "workers": workers,
        "repetitions": repetitions,
        "producer_to_searchable_items_per_second": asdict(Spread.of(queue_rates)),
        "raw_set_and_sadd_items_per_second": asdict(Spread.of(raw_rates)),
        "ratio": asdict(Spread.of(ratios)),
        "memory": plain,
        "memory_with_labels": labelled,
    }


def _ingest(data: Dataset, folder: Path, workers: int, *, labelled: bool) -> tuple[float, dict[str, Any]]:
    """Seconds, and the memory that an item took beside its vector."""
    with running_server() as url, redis.Redis.from_url(url) as client:
        Index.create(INDEX, SETTINGS, url, sample=data.training)
        with running_workers(url, workers):
            before = settled_memory(client)
            seconds = in_own_process(stream_through_queue, url, INDEX, folder, labelled)
        after = settled_memory(client)
        status = Index(INDEX, url).status()
        if status["items"] != len(data.items):
            raise RuntimeError(f"{status['items']} of {len(data.items)} items are in the index")
        memory = {
            f"{name}_bytes_per_item": (after[name] - before[name]) / len(data.items) - VECTOR_BYTES for name in after
        }
        kinds = by_kind(client, VECTOR_BYTES, len(data.items))
        return seconds, {**memory, "by_kind": kinds, "machine": machine(client)}


def _tables(result: dict[str, Any]) -> list[str]:
    def rate(name: str, digits: int = 0) -> str:
        return Spread(**result[name]).shown(digits)

    plain, labelled = result["memory"], result["memory_with_labels"]
    rates = [
        ("measure", "median (least to greatest)"),
        ("producer to searchable, items/s", rate("producer_to_searchable_items_per_second")),
        ("raw SET + SADD, items/s", rate("raw_set_and_sadd_items_per_second")),
        ("ratio (target: at least 0.25)", rate("ratio", 3)),
    ]
    memory = [("bytes an item beside the vector", "without labels", "all labelled")]
    for name, target in (("used_memory", " (target: at most 400)"), ("used_memory_dataset", "")):
        sizes = [f"{kind[f'{name}_bytes_per_item']:.0f}" for kind in (plain, labelled)]
        memory.append((name + target, sizes[0], sizes[1]))
    kinds = [{row["kind"]: row["bytes_per_item"] for row in kind["by_kind"]} for kind in (plain, labelled)]
    for name in kinds[1]:
        both = [kind.get(name, 0.0) for kind in kinds]
        if max(both) >= 0.05:
            memory.append((f"  {name}", f"{both[0]:.1f}", f"{both[1]:.1f}"))
    return [
        f"{result['data']}: {result['items']:,} × {result['dimension']}, {result['workers']} workers",
        table(rates),
        table(memory),
    ]


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--repetitions", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(data: Path | None, items: int | None, repetitions: int, workers: int, json_file: Path | None) -> None:
    """Measure ingest.

    Example: python -m benchmarks.ingest --data Gist512CIFAR10.mat
    """
    result = measure(load_dataset(data, items), repetitions, workers)
    publish(result, _tables(result), json_file)


if __name__ == "__main__":
    main()

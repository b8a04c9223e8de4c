"""A restore drill: export from the embedded server, import into other engines, a cluster and other partitions.

Each import is verified, and asked the same queries as the original. Export and import run in processes of their own, so
that their memory is told apart; the pages of code that any of our processes has are in it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import redis

from benchmarks.dataset import DIMENSION, Dataset, load_dataset
from benchmarks.query_plans import grh
from benchmarks.report import machine, progress, publish, table
from benchmarks.services import in_own_process, running_server
from stream_hash.client import Index
from stream_hash.service.connections import Connections
from stream_hash.service.evaluate import temporary_index
from stream_hash.service.export import export_index
from stream_hash.service.handle import IndexHandle
from stream_hash.service.restore import import_index
from stream_hash.settings import IndexSettings
from stream_hash.storage.connection import Client, connect
from tests import servers

PARTITIONS = 4
PLANS: dict[str, dict[str, Any]] = {"default": {}, "radius 2": {"radius": 2}, "exact": {"exact": True}}
ANYWHERE = ("radius 2", "exact")
"""What these find is the same in any number of partitions; by a budget, each partition gathers its own share."""


def measure(data: Dataset, queries: int) -> dict[str, Any]:
    """All figures of this benchmark."""
    asked = data.queries[:queries]
    labels = [str(label) for label in data.labels.tolist()]
    metadata = [f'{{"row":{row}}}' for row in range(len(data.items))]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sh-")))
        url = stack.enter_context(running_server())
        client = stack.enter_context(redis.Redis.from_url(url))
        progress("filling the index")
        settings = IndexSettings(DIMENSION, bits=16, partitions=PARTITIONS)
        made = temporary_index(client, grh(data), data.items, settings=settings, labels=labels, metadata=metadata)
        handle = stack.enter_context(made)
        file = folder / "index.shx"
        progress("exporting")
        seconds, peak = in_own_process(export_to, url, handle.name, file)
        expected = _answers(client, handle.name, asked)
        found = {
            "machine": machine(client),
            "data": data.source,
            "items": len(data.items),
            "queries": len(asked),
            "export": {
                "seconds": seconds,
                "items_per_second": len(data.items) / seconds,
                "megabytes": file.stat().st_size / 1e6,
                "megabytes_per_second": file.stat().st_size / 1e6 / seconds,
                "peak_megabytes": peak,
            },
            "imports": [],
        }
        for name, target, partitions in _targets(stack, folder):
            progress(f"importing into {name}")
            seconds, peak = in_own_process(import_from, target, file, partitions)
            other = connect(target)
            answers = _answers(other, "restored", asked)
            found["imports"].append(
                {
                    "target": name,
                    "partitions": partitions or PARTITIONS,
                    "seconds": seconds,
                    "items_per_second": len(data.items) / seconds,
                    "peak_megabytes": peak,
                    "violations": len(Index("restored", Connections(other, None)).verify().violations),
                    "equal": {
                        plan: sum(one == two for one, two in zip(expected[plan], answers[plan], strict=True))
                        for plan in PLANS
                    },
                }
            )
            other.flushall()
    return found


def _in_order(result: dict[str, Any]) -> bool:
    """Whether each import is whole, and answers as the original does wherever it can."""
    return all(
        row["violations"] == 0
        and all(
            row["equal"][plan] == result["queries"] for plan in (PLANS if row["partitions"] == PARTITIONS else ANYWHERE)
        )
        for row in result["imports"]
    )


def _targets(stack: ExitStack, folder: Path) -> Iterator[tuple[str, str, int | None]]:
    """(what it is, its URL, partitions), each server empty."""
    own = stack.enter_context(running_server())
    (folder / "redis").mkdir()
    other = stack.enter_context(servers.running_server(servers.path_redis_binary(), folder / "redis"))
    (folder / "cluster").mkdir()
    cluster = stack.enter_context(servers.running_cluster(servers.bundled_binary(), folder / "cluster"))
    version = redis.Redis.from_url(other).info("server")["redis_version"]
    yield "embedded server", own, None
    yield f"Redis {version}", other, None
    yield "three-node cluster", cluster, None
    yield f"Redis {version}", other, 1
    yield "three-node cluster", cluster, 16


def export_to(url: str, name: str, file: Path) -> tuple[float, float]:
    """Seconds, and the process's greatest memory in MB."""
    handle = IndexHandle(connect(url), name)
    start = time.perf_counter()
    with file.open("wb") as target:
        export_index(handle, target, writer="benchmark")
    return time.perf_counter() - start, _peak_megabytes()


def import_from(url: str, file: Path, partitions: int | None) -> tuple[float, float]:
    """Seconds, and the process's greatest memory in MB."""
    client = connect(url)
    start = time.perf_counter()
    with file.open("rb") as source:
        import_index(client, source, str(file), "restored", partitions=partitions)
    return time.perf_counter() - start, _peak_megabytes()


def _peak_megabytes() -> float:
    """Not ru_maxrss: that begins with what the parent had."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1e3


def _answers(client: Client, name: str, asked: Any) -> dict[str, list[Any]]:
    index = Index(name, Connections(client, None))
    return {plan: [answer.results for answer in index.query(asked, **options)] for plan, options in PLANS.items()}


def _tables(result: dict[str, Any]) -> list[str]:
    heading = ("", "partitions", "seconds", "items/s", "peak MB", "violations", *(f"equal, {plan}" for plan in PLANS))
    export = result["export"]
    rows: list[Sequence[str]] = [heading]
    figures = [f"{export['seconds']:.1f}", f"{export['items_per_second']:,.0f}", f"{export['peak_megabytes']:.0f}"]
    rows.append(("export", f"{PARTITIONS}", *figures, *["-"] * (1 + len(PLANS))))
    rows += [
        (
            f"import: {row['target']}",
            f"{row['partitions']}",
            f"{row['seconds']:.1f}",
            f"{row['items_per_second']:,.0f}",
            f"{row['peak_megabytes']:.0f}",
            f"{row['violations']}",
            *(f"{row['equal'][plan]} of {result['queries']}" for plan in PLANS),
        )
        for row in result["imports"]
    ]
    return [f"{result['data']}: {result['items']:,} items, {export['megabytes']:.0f} MB", table(rows)]


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=1), help="Only the first of the database.")
@click.option("--queries", type=click.IntRange(min=1), default=500, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(data: Path | None, items: int | None, queries: int, json_file: Path | None) -> None:
    """Export an index, import it elsewhere, and compare the answers; exit code 1 if they differ where they may not.

    Example: python -m benchmarks.backup --data Gist512CIFAR10.mat
    """
    result = measure(load_dataset(data, items), queries)
    publish(result, _tables(result), json_file)
    sys.exit(not _in_order(result))


if __name__ == "__main__":
    main()

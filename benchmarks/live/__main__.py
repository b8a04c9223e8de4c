"""The command line of the run."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from benchmarks.dataset import DIMENSION, load_dataset
from benchmarks.live.plan import LivePlan
from benchmarks.live.run import measure
from benchmarks.live.tables import tables
from benchmarks.report import publish
from stream_hash.queue.arguments import LEARNERS
from stream_hash.settings import IndexSettings

WRONG = (
    *("failed", "short", "doubled_in_answers", "violations", "violations_at_the_end"),
    *("lost", "doubled", "deleted_and_there", "not_as_sent_last", "pending", "dead_letters"),
)


@click.command()
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), envvar="STREAM_HASH_BENCH_DATA")
@click.option("--items", type=click.IntRange(min=100), help="Only the first of the database.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@click.option("--switches", type=click.IntRange(min=2), default=8, show_default=True, help="Of generations, at least.")
@click.option("--clients", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--bits", type=click.IntRange(1, 62), default=12, show_default=True)
@click.option("--tables", "table_count", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--verifications", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--learner", type=click.Choice(LEARNERS), default="pa", show_default=True)
@click.option("--pause", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Seconds between queries.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(
    data: Path | None,
    items: int | None,
    minutes: float,
    switches: int,
    clients: int,
    workers: int,
    bits: int,
    table_count: int,
    verifications: int,
    learner: str,
    pause: float,
    json_file: Path | None,
) -> None:
    """Ingest, change, query and swap generations, all at once; exit code 1 if anything was lost, wrong or short.

    Example: python -m benchmarks.live --data Gist512CIFAR10.mat
    """
    # Ended by its default, this process would leave the server and the workers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = IndexSettings(DIMENSION, bits=bits, tables=table_count)
    plan = LivePlan(settings, minutes, switches, clients, workers, verifications, learner, pause)
    result = measure(load_dataset(data, items), plan)
    publish(result, tables(result), json_file)
    sys.exit(any(result["counts"][name] for name in WRONG))


if __name__ == "__main__":
    main()

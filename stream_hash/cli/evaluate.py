"""evaluate: how well each way of hashing finds what a labelled file holds."""

from __future__ import annotations

import contextlib
import csv
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from stream_hash.cli import curves
from stream_hash.cli.labelled import Labelled, read_labelled
from stream_hash.cli.options import format_option, json_option, opened
from stream_hash.cli.output import json_line, line, note, printable, progress, table
from stream_hash.cli.signals import ignore_signals, signals_that_end
from stream_hash.environment import Environment
from stream_hash.errors import StreamHashError, UsageError
from stream_hash.numerics.comparison import Data, Settings, Trial, compare
from stream_hash.numerics.methods import DEFAULTS, HYPERPLANES, METHODS
from stream_hash.numerics.protocol import SEED, split
from stream_hash.numerics.summary import MEASURES, Row, spread_over, summarise
from stream_hash.settings import MAX_BITS
from stream_hash.storage.connection import Client, redis_errors
from stream_hash.storage.server import EmbeddedServer

FEW_QUERIES: Final = 100
LONGEST_CODE: Final = 64
"""Bits of a code in memory; an index holds up to MAX_BITS."""

QUALITY: Final = MEASURES[:4]
"""Those of the measures whose standard errors are given."""


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic only since Click 8.2
    """Whole numbers: 8,16,24 or 0..10, ascending and each once."""

    name = "numbers"

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        found: set[int] = set()
        for part in str(value).split(","):
            first, dots, last = part.strip().partition("..")
            try:
                low, high = int(first), int(last if dots else first)
            except ValueError:
                self.fail(f"{part!r} is neither a whole number nor a range such as 0..10.", param, ctx)
            if not self.low <= low <= high <= self.high:
                self.fail(f"{part!r} is not in the range {self.low} to {self.high}.", param, ctx)
            if high - low >= 1_000:
                self.fail(f"{part!r} is more than 1,000 numbers.", param, ctx)
            found.update(range(low, high + 1))
        return tuple(sorted(found))


def _methods(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:  # noqa: ARG001 - Click's
    if value is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for name in names:
        if name not in METHODS:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(METHODS)}.")
    return names


@click.command(short_help="Compare ways of hashing on a labelled file.")
@click.argument("file", metavar="FILE|-")
@click.option(
    "--methods",
    callback=_methods,
    help=f"Which of {', '.join(METHODS)} to compare. "
    f"[default: {','.join(DEFAULTS)}; with --index {','.join(HYPERPLANES)}]",
)
@click.option("--bits", type=Numbers(1, LONGEST_CODE), default="16", show_default=True, help="Lengths of a code.")
@click.option("--radius", "radii", type=Numbers(0, LONGEST_CODE), default="0..4", show_default=True, help="Radii.")
@click.option("--budget", "budgets", type=Numbers(1, 10**9), default="100,300,1000", show_default=True, help="Budgets.")
@click.option("-k", "k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Answers a query.")
@click.option("--queries", type=click.IntRange(min=1), help="Queries. [default: the tutorial's 0.2 % of the items]")
@click.option("--train", type=click.IntRange(min=1), help="Training items. [default: the tutorial's 2 % of the others]")
@click.option("--seeds", type=click.IntRange(1, 1_000), default=1, show_default=True, help="Splits to average over.")
@click.option("--index", is_flag=True, help="Search a temporary index on a server, not in memory.")
@click.option("--url", help="With --index, the server. [default: an embedded one, gone afterwards]")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows here, too.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw curves: a .png or .svg file.")
@click.option("--limit", type=click.IntRange(min=1), help="Rows of the file to look at.")
@format_option
@json_option
def evaluate(
    file: str,
    methods: tuple[str, ...] | None,
    bits: tuple[int, ...],
    radii: tuple[int, ...],
    budgets: tuple[int, ...],
    k: int,
    queries: int | None,
    train: int | None,
    seeds: int,
    index: bool,
    url: str | None,
    csv_file: Path | None,
    plot: Path | None,
    limit: int | None,
    format_: str,
    as_json: bool,
) -> int:
    """Hold out queries from a labelled file, learn from a few of the other items, and search the rest.

    The protocol is that of the tutorial on learning2hash.github.io: unit length, its split (seed 42; with
    --seeds N, also the N - 1 seeds after it), exact ranking by the cosine about the mean. An answer is right if it
    shares a label with the query; answers that are missing count as wrong.

    The methods are LSH, ITQ, the tutorial's GRH, and our GRH as it comes.

    \b
    P@k     share of right answers among k        1st         whether the nearest answer is right
    recall  share of the exact k nearest found    mAP         of all items by Hamming distance, ties at random
    ±       standard error of P@k (of mAP): over the splits, or over the queries if there is one split

    --index fills an index for each method and searches it; it ranks by the cosine of the vectors as they
    are. An index of this release hashes by hyperplanes alone: a method with a feature map is refused there.
    What is learned from an index's own labels goes live by `stream-hash train`.

    Exit code 3 when some rows were left out.

    \b
    Example:
      stream-hash evaluate Gist512CIFAR10.mat --methods lsh,itq --radius 0..10 --plot curves.svg
      stream-hash evaluate photos.npz --queries 2000 --seeds 3 --bits 8,16,24,32,48,64 --json
    """
    _check(index, url, bits, csv_file, plot)
    settings = Settings(methods or (HYPERPLANES if index else DEFAULTS), bits, radii, budgets, k)
    with progress(f"reading {file}") as show:
        source = read_labelled(sys.stdin.buffer if file == "-" else Path(file), format_, limit, show)
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(_server(url)) if index else None
            splits = []
            sizes: dict[str, int] = {}
            for number in range(seeds):
                parts = split(len(source.vectors), SEED + number, queries=queries, training=train)
                sizes = {name: len(getattr(parts, name)) for name in ("queries", "training", "database")}
                data = Data.of(source.vectors, source.classes, parts, number)
                prefix = f"split {number + 1} of {seeds}: " if seeds > 1 else ""
                splits.append(_trials(client, data, settings, _prefixed(prefix, show)))
        rows = summarise(splits)
    _notes(source, sizes["queries"], queries)
    values = [_values(row) for row in rows]
    facts = {
        "file": "standard input" if file == "-" else file,
        "dimension": source.vectors.shape[1],
        "classes": len(source.classes.names),
        **sizes,
        "k": k,
        "splits": seeds,
        "standard_errors_over": spread_over(seeds),
        "index": index,
    }
    if as_json:
        json_line(facts)
        for value in values:
            json_line(value)
    else:
        _print(facts, rows)
    if csv_file is not None:
        _write_csv(csv_file, values)
    if plot is not None:
        curves.draw(plot, rows, k)
    return 3 if source.rejected else 0


def _check(index: bool, url: str | None, bits: tuple[int, ...], csv_file: Path | None, plot: Path | None) -> None:
    """Whatever would end a long run at its end ends it here."""
    if url is not None and not index:
        raise click.UsageError("--url goes with --index.")
    if index and bits[-1] > MAX_BITS:
        raise UsageError(f"--index with {bits[-1]} bits", why=f"an index has at most {MAX_BITS}", remedy="lower --bits")
    if plot is not None:
        curves.check(plot)
    for target in (csv_file, plot):
        if target is not None and not target.absolute().parent.is_dir():
            raise UsageError(
                f"{target} cannot be written", why=f"there is no directory {target.parent}", remedy="create it"
            )


def _trials(client: Client | None, data: Data, settings: Settings, show: Callable[[str], None]) -> list[Trial]:
    if client is None:
        return list(compare(data, settings, show))
    from stream_hash.service.evaluate import compare_in_index

    with redis_errors():
        return list(compare_in_index(client, data, settings, show))


def _prefixed(prefix: str, show: Callable[[str], None]) -> Callable[[str], None]:
    return lambda text: show(prefix + text)


@contextlib.contextmanager
def _server(url: str | None) -> Iterator[Client]:
    """The server at a URL, or an embedded one in a new directory that is gone afterwards."""
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="sh-evaluate-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.enter_context(signals_that_end())
        if url is None:
            server = EmbeddedServer(directory)
            stack.callback(server.stop, timeout_seconds=10.0)
            stack.callback(ignore_signals)
            url = server.start().url
        yield opened(Environment(url, None, directory)).client


def _notes(source: Labelled, asked: int, wanted: int | None) -> None:
    if source.rejected:
        note(f"rows left out: {source.rejected}; the first: {printable(source.first_rejection)}")
    if source.unlabelled:
        note(f"items left out because they have no label: {source.unlabelled}")
    if asked < FEW_QUERIES and wanted is None:
        note(f"fewer than {FEW_QUERIES} queries tell little: {asked}; take more with --queries")


def _values(row: Row) -> dict[str, Any]:
    """A row as plain values: the keys of --json and the columns of --csv. New ones may be added, these stay."""
    what = row.what
    return {
        "method": what.method,
        "bits": what.bits,
        "plan": what.plan,
        "radius": what.at if what.plan == "radius" else None,
        "budget": what.at if what.plan == "budget" else None,
        **{name: _rounded(row.means.get(name)) for name in MEASURES},
        **{f"{name}_standard_error": _rounded(row.errors.get(name)) for name in QUALITY},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _print(facts: dict[str, Any], rows: list[Row]) -> None:
    splits = "" if facts["splits"] == 1 else f", mean of {facts['splits']} splits"
    where = "a temporary index" if facts["index"] else "memory"
    line(
        f"{printable(facts['file'])}: {facts['database']} items of {facts['dimension']} coordinates in {where}, "
        f"{facts['classes']} classes; {facts['training']} training items, {facts['queries']} queries{splits}"
    )
    shown = ("precision_at_k", "semantic_accuracy", "recall_at_k", "mean_average_precision")
    k = facts["k"]
    table(
        ["method", "bits", "plan", f"P@{k}", "1st", f"recall@{k}", "mAP", "±", "candidates", "ms"],
        [
            [
                row.what.method,
                "-" if row.what.bits is None else row.what.bits,
                row.what.plan if row.what.at is None else f"{row.what.plan} {row.what.at}",
                *(_cell(row.means.get(name), 3) for name in shown),
                _cell(row.errors.get("precision_at_k", row.errors.get("mean_average_precision")), 3),
                _cell(row.means.get("candidates"), 1),
                _cell(row.means.get("milliseconds"), 2),
            ]
            for row in rows
        ],
    )


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _write_csv(path: Path, values: list[dict[str, Any]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(values[0]))
            writer.writeheader()
            writer.writerows(values)
    except OSError as error:
        raise StreamHashError(f"{path} cannot be written", why=str(error), remedy="choose another --csv") from error

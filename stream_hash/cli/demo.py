"""demo: the whole service at work on the digits that come with scikit-learn."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from stream_hash.cli import curves
from stream_hash.cli.digits import QUERIES, Digits, Row, measure
from stream_hash.cli.options import data_dir_option, json_option, opened
from stream_hash.cli.output import json_line, line, note, progress, table
from stream_hash.cli.rising import RADIUS, Course, Point, chart, event
from stream_hash.cli.server import embedded_environment, start
from stream_hash.cli.signals import ignore_signals, signals_that_end
from stream_hash.environment import Environment
from stream_hash.errors import UsageError
from stream_hash.service.asking import trainers
from stream_hash.service.connections import Connections
from stream_hash.service.status import hash_workers
from stream_hash.service.verify import Report
from stream_hash.storage.server import EmbeddedServer
from workers.detached import Fleet

WORKERS: Final = 2


@click.command(short_help="Show the whole service at work on real data.")
@click.option("--keep", is_flag=True, help="Use the configured data directory, and leave all of it running.")
@click.option("--url", help="Use this server; the index stays there. [default: an embedded one, gone afterwards]")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it: a .png or .svg file.")
@data_dir_option
@json_option
def demo(keep: bool, url: str | None, plot: Path | None, data_dir: Path | None, as_json: bool) -> int:
    """Stream 1,597 labelled images of digits through the queue, two hash workers and a trainer; query with 200 others.

    Shows how answers get better while the trainer learns hash functions from the labels and swaps them in: after
    each portion of the stream, the share of ten answers that show the query's digit. Only what the radius itself
    holds is counted: answers that are missing count as wrong. Leaves nothing behind, unless it is told to --keep
    everything or is given a --url.

    \b
    Example:
      stream-hash demo
      stream-hash demo --plot demo.svg
      stream-hash demo --keep
    """
    if (keep and url is not None) or (data_dir is not None and not keep):
        raise UsageError(
            "--data-dir goes with --keep, and neither of them with --url",
            why="without --keep, the demo's server is a temporary one",
            remedy="stream-hash demo --keep",
        )
    if plot is not None:
        curves.check(plot)
    name = f"demo-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        show = stack.enter_context(progress("starting a server, two hash workers and a trainer"))
        connections = _kept(data_dir) if keep else stack.enter_context(_temporary(url))
        digits = Digits.load()
        course, points = Course(name, digits, connections), []
        show("streaming the items")
        for point in course.points():
            points.append(point)
            show(f"streaming the items: {point.items}, generation {point.generation}: {point.precision:.3f}")
        show("querying")
        rows = list(measure(course.index, digits))
        report = course.index.verify()
    if plot is not None:
        curves.draw_rising(plot, points, f"{QUERIES} queries by radius {RADIUS}, while digits stream in")
    if as_json:
        _print_json(name, points, course.seconds, rows, report)
    else:
        _print(points, course.seconds, rows, report)
    if keep:
        where = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
        note("\nThe server and the workers go on running. Next:")
        note(f"  stream-hash query {name} --id {digits.ids[0]} -k 5 --explain{where}")
        note(f"  stream-hash status {name}{where}\n  stream-hash down{where}")
    elif url is not None:
        note(f"the index stays on the server: {name}")
    return 0 if report.clean else 1


def _kept(data_dir: Path | None) -> Connections:
    environment = embedded_environment(data_dir=data_dir)
    start(environment, WORKERS, trainer=True)
    return opened(environment)


@contextlib.contextmanager
def _temporary(url: str | None) -> Iterator[Connections]:
    """Two workers, a trainer, and unless there is a URL a server, in a new directory; all of it is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="sh-demo-"))
    server, fleet = EmbeddedServer(directory), Fleet(directory)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.enter_context(signals_that_end())
        stack.callback(server.stop, timeout_seconds=10.0)
        stack.callback(fleet.stop, timeout_seconds=30.0)
        stack.callback(ignore_signals)
        address = url or server.start().url
        connections = opened(Environment(address, None, directory))
        others = {worker.name for worker in hash_workers(connections) + trainers(connections)}
        fleet.start(WORKERS, address, trainers=1)
        fleet.wait_until_working(connections.broker, WORKERS, trainers=1, besides=others)
        yield connections


def _print(points: list[Point], seconds: float, rows: list[Row], report: Report) -> None:
    chart(points)
    items = points[-1].items
    line(f"{items} items through the queue and {WORKERS} workers in {seconds:.2f} s: {items / seconds:.0f} items/s")
    line(f"{QUERIES} queries, held out, generation {points[-1].generation}:")
    table(
        ["plan", "precision@10", "found", "candidates", "probes", "p50 ms"],
        [
            [
                "exact" if row.radius is None else f"radius {row.radius}",
                f"{row.precision:.3f}",
                f"{row.found:.1f}",
                f"{row.candidates:.1f}",
                f"{row.probes:.0f}",
                f"{row.p50_milliseconds:.2f}",
            ]
            for row in rows
        ],
    )
    line(f"verify: {report.items} items in {report.buckets} buckets, {len(report.violations)} violations")
    for violation in report.violations:
        line(f"- {violation}")


def _print_json(name: str, points: list[Point], seconds: float, rows: list[Row], report: Report) -> None:
    items = points[-1].items
    for point in points:
        json_line(
            {
                "items": point.items,
                "generation": point.generation,
                "radius": RADIUS,
                "precision_at_10": round(point.precision, 4),
                "untrained_precision_at_10": round(point.untrained, 4),
                "exact_precision_at_10": round(point.exact, 4),
                "training": point.run and event(point),
            }
        )
    json_line(
        {
            "index": name,
            "items": items,
            "queries": QUERIES,
            "seconds": round(seconds, 6),
            "items_per_second": round(items / seconds, 1),
        }
    )
    for row in rows:
        json_line(
            {
                "plan": "exact" if row.radius is None else "radius",
                "radius": row.radius,
                "precision_at_10": round(row.precision, 4),
                "found": row.found,
                "candidates": row.candidates,
                "probes": row.probes,
                "p50_milliseconds": round(row.p50_milliseconds, 3),
            }
        )
    json_line({"index": name, "items": report.items, "buckets": report.buckets, "violations": report.violations})

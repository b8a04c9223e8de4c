"""create, status, verify: an index as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import click

from stream_hash import formats
from stream_hash.cli.dead import SHOWN_LETTERS, print_letters
from stream_hash.cli.options import format_option, json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, pairs, table
from stream_hash.cli.sparkline import sparkline
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.service.connections import embedded_url
from stream_hash.service.status import server_status
from stream_hash.settings import BUCKET_LEAST, BUCKET_MOST, IndexSettings, Metric, VectorType, bits_for
from stream_hash.storage.urls import redacted

_DEFAULTS = IndexSettings(1)


@click.command(short_help="Create an index.")
@click.argument("name")
@click.option("--dim", type=int, required=True, help="Coordinates of a vector.")
@click.option("--bits", type=int, help=f"Hyperplanes a table, 1 to 62. [default: {_DEFAULTS.bits}]")
@click.option("--items", type=int, help="In place of --bits: how many items are expected.")
@click.option("--tables", type=int, default=_DEFAULTS.tables, show_default=True, help="Independent hash tables.")
@click.option("--metric", type=click.Choice(["cosine", "l2", "inner"]), default=_DEFAULTS.metric, show_default=True)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default=_DEFAULTS.dtype, show_default=True)
@click.option("--partitions", type=int, default=_DEFAULTS.partitions, show_default=True, help="One hash slot each.")
@click.option("--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="Of the first hyperplanes.")
@click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="File of vectors whose mean is frozen in the first generation. [default: the first batch]",
)
@format_option
@json_option
@server_options
def create(
    environment: Environment,
    name: str,
    dim: int,
    bits: int | None,
    items: int | None,
    tables: int,
    metric: Metric,
    dtype: VectorType,
    partitions: int,
    seed: int,
    sample: Path | None,
    format_: str,
    as_json: bool,
) -> None:
    """Create an index.

    One that exists with the same settings is left as it is; with other settings that is an error. --items chooses
    bits with which a bucket holds 8 to 32 items on average, which is searched fastest.

    \b
    Example:
      stream-hash create photos --dim 512 --items 100000 --sample some.npy
    """
    if bits is not None and items is not None:
        raise click.UsageError("Give one of --bits and --items.")
    settings = IndexSettings(dim, _DEFAULTS.bits if bits is None else bits, tables, metric, dtype, partitions, seed)
    if items is not None:
        settings = replace(settings, bits=bits_for(items, partitions))
    vectors = formats.read_queries(sample, format=format_)[1] if sample else None
    connections = opened(environment)
    stood = name in Index.names(connections)
    index = Index.create(name, settings, connections, sample=vectors)
    if as_json:
        json_line({"index": name, "created": not stood, **asdict(index.settings)})
    elif stood:
        line(f"index {name!r} exists already, with these settings")
    else:
        several = "s" * (tables > 1)
        line(f"created index {name!r}: {dim} dimensions, {settings.bits} bits, {tables} table{several}, {metric}")
    if stood and sample and index.status()["generation"]:
        note("the sample is not used: the first generation stands already")


@click.command(short_help="Show the server, or one index.")
@click.argument("name", required=False)
@click.option("--dead", is_flag=True, help="Of NAME, list the items that no worker could store: the oldest 100.")
@json_option
@server_options
def status(environment: Environment, name: str | None, dead: bool, as_json: bool) -> None:
    """Show the server, its workers and its indexes; or, given a NAME, one index.

    \b
    Example:
      stream-hash status
      stream-hash status photos --json
      stream-hash status photos --dead
    """
    if dead and name is None:
        raise click.UsageError("Give the NAME of an index with --dead.")
    connections = opened(environment)
    if name is not None and dead:
        print_letters(Index(name, connections).dead_letters(SHOWN_LETTERS), SHOWN_LETTERS, as_json)
        return
    if name is not None:
        _print_index(Index(name, connections).status(), as_json)
        return
    url = redacted(environment.url or embedded_url(environment))
    found = server_status(connections)
    found["server"] = {"url": url, **found["server"]}
    if as_json:
        json_line(found)
    else:
        _print_server(found)


def _print_index(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        json_line(found)
        return
    generations, fitting = found.pop("generations"), found.pop("fitting_bits")
    if fitting not in (None, found["bits"]):
        fits = f"{fitting} bit{'s' * (fitting > 1)}"
        found["mean_bucket"] = (
            f"{found['mean_bucket']} (not {BUCKET_LEAST} to {BUCKET_MOST}: so many items want {fits})"
        )
    pairs([(key.replace("_", " "), _value(key, value)) for key, value in found.items()])
    if generations:
        line("")
        table(["generation", "kind", "created", "sha256"], [_generation(record) for record in generations])


def _value(key: str, value: Any) -> object:
    """What stands behind a name, in words."""
    if value is None or value == []:
        return "-"
    return _WORDS[key](value) if key in _WORDS else value


def _generations(value: list[int]) -> str:
    return ", ".join(map(str, value))


def _reindex(value: dict[str, Any]) -> str:
    rate = f", {value['rate']:.0f} items/s" if value["rate"] else ""
    return f"generation {value['generation']}: {value['done']} of {value['items']} items{rate}"


def _quality(value: dict[str, Any]) -> str:
    trend = "" if value["trend"] is None else f" ({value['trend']:+.2f})"
    return f"precision@10 {value['precision']:.2f}{trend} {sparkline([mean for _, mean in value['points']])}"


def _plan(value: dict[str, Any]) -> str:
    what = f"{value['measure']}@{value['k']} {value['measured']:.3f} ± {value['standard_error']:.3f}"
    return f"budget {value['budget']}, fetch {value['fetch']}: {what} under generation {value['generation']}"


_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "building": _generations,
    "retiring": _generations,
    "reindex": _reindex,
    "trainer": lambda value: f"{value['doing'] or 'beginning'} ({value['holder']})",
    "training": lambda value: f"{_moment(value['started'])}, {value['decision']}: {value['reason']}",
    "quality": _quality,
    "plan": _plan,
}


def _generation(record: dict[str, Any]) -> list[object]:
    return [record["generation"], record["kind"], _moment(record["created"]), record["sha256"][:12]]


def _moment(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _print_server(found: dict[str, Any]) -> None:
    server, workers = found["server"], found["workers"]
    most = server["max_memory_bytes"]
    busy = sum(worker["state"] == "busy" for worker in workers)
    pairs(
        [
            ("server", server["url"]),
            ("engine", f"{server['engine']} {server['version']}, {server['mode']}"),
            ("memory", f"{server['memory_bytes'] / 1e6:.1f} MB" + (f" of {most / 1e6:.1f} MB" if most else "")),
            ("workers", f"{len(workers)} alive, {busy} busy"),
            ("trainers", f"{len(found['trainers'])} alive"),
            ("queued", f"{found['queued']} batches"),
            *([("importing", ", ".join(found["importing"]))] if found["importing"] else []),
        ]
    )
    keys = ("index", "items", "dimension", "bits", "tables", "metric", "generation", "pending", "dead")
    if found["indexes"]:
        line("")
        table(keys, [[index[key] for key in keys] for index in found["indexes"]])
    else:
        line("no index yet: stream-hash create NAME --dim D")


@click.command(short_help="Check every invariant of an index.")
@click.argument("name")
@json_option
@server_options
def verify(environment: Environment, name: str, as_json: bool) -> int:
    """Check every invariant of an index; it may be written meanwhile. Exit code 1 when one is broken.

    \b
    Example:
      stream-hash verify photos
    """
    report = Index(name, opened(environment)).verify()
    if as_json:
        json_line({"index": name, "items": report.items, "buckets": report.buckets, "violations": report.violations})
    else:
        line(f"{report.items} items in {report.buckets} buckets, {len(report.violations)} violations")
        for violation in report.violations:
            line(f"- {violation}")
    return 0 if report.clean else 1

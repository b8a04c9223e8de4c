"""query: the nearest items to vectors from a file or stdin, or to an item."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from stream_hash import formats
from stream_hash.cli.batches import as_they_come, of_size
from stream_hash.cli.options import format_option, json_option, opened, server_options
from stream_hash.cli.output import json_line, line, pairs, table
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.errors import FormatError, StreamHashError, UsageError
from stream_hash.formats import Rejected
from stream_hash.service.answer import Answer
from stream_hash.service.filters import Filter
from stream_hash.service.search import BATCH

Query = tuple[str, NDArray[np.float32]]
"""Its name and its vector."""


@click.command(short_help="Find the nearest items.")
@click.argument("name")
@click.argument("source", type=click.Choice(["-"]), metavar="[-]", required=False)
@click.option("--vectors", help="File of queries; - is stdin.")
@click.option("--id", "item_id", help="Query with the vector of this item, which is then among the answers.")
@click.option("-k", "k", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Answers a query.")
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    help="Probe the likeliest buckets until they hold as many. [default: what tune --save chose, else 300, or 30 k]",
)
@click.option("--radius", type=click.IntRange(min=0), help="Probe every bucket within this Hamming distance.")
@click.option(
    "--fetch",
    type=click.IntRange(min=0),
    help="Rank only so many candidates, those with the best signatures; 0 for all. [default: all of a radius's; of a "
    "budget's 200, 20 k or a tenth]",
)
@click.option("--exact", is_flag=True, help="Rank every item of the index.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only items with this metadata; all of several.")
@click.option("--label", "labels", multiple=True, help="Only items with this label; all of several.")
@click.option("--explain", is_flag=True, help="Tell how the answers were found.")
@click.option("--limit", type=click.IntRange(min=1), help="Queries to answer.")
@format_option
@json_option
@server_options
def query(
    environment: Environment,
    name: str,
    source: str | None,
    vectors: str | None,
    item_id: str | None,
    k: int,
    budget: int | None,
    radius: int | None,
    fetch: int | None,
    exact: bool,
    where: tuple[str, ...],
    labels: tuple[str, ...],
    explain: bool,
    limit: int | None,
    format_: str,
    as_json: bool,
) -> None:
    """Find the k nearest items to each query, best first.

    Queries come from a file (--vectors), from stdin (-), or are the vector of an item (--id). Those of
    stdin are answered as they come, all that came meanwhile together.

    The score is the cosine, the inner product, or the negated distance
    under l2: larger is nearer. A radius that holds fewer than k items is widened, and the answer says so.

    With --where and --label only items that match are answers, k of them if there are k. A value is compared with an
    item's as text and as JSON: page=7 finds "7" and 7, and page='"7"' no number.

    \b
    Example:
      stream-hash query photos --id cat.jpg -k 5
      stream-hash query photos --id cat.jpg --label cat --where colour=red
      stream-hash query photos --vectors queries.npy --budget 1000 --json
    """
    given = [value for value in (source, vectors, item_id) if value is not None]
    if len(given) != 1:
        raise click.UsageError("Name the queries by one of --vectors FILE, --id ID and -.")
    wanted = Filter.of_texts(where, labels)
    index = Index(name, opened(environment))
    bits = index.settings.bits
    reading: dict[str, Any] = {"format": format_, "limit": limit, "dimension": index.settings.dimension}
    queries = _read(given[0], reading) if item_id is None else iter([(item_id, _vector_of(index, item_id))])
    plan: dict[str, Any] = {"k": k, "radius": radius, "budget": budget, "where": wanted}
    if fetch is not None:
        plan["fetch"] = fetch or None
    batches = as_they_come(queries, BATCH) if given[0] == "-" else of_size(queries, BATCH)
    for query_id, answer in _answers(index, batches, exact, plan):
        if as_json:
            json_line(_as_json(query_id, answer, explain))
        else:
            _print(query_id, answer, bits if explain else None)


def _vector_of(index: Index, item_id: str) -> NDArray[np.float32]:
    (item,) = index.get([item_id])
    if item is None:
        raise StreamHashError(
            f"index {index.name!r} has no item {item_id!r}",
            why="it was never stored, is still pending, or was deleted",
            remedy=f"stream-hash status {index.name}",
        )
    return item.vector


def _read(source: str, reading: dict[str, Any]) -> Iterator[Query]:
    """The queries of a file, which is checked as a whole first, or those of stdin, each as it comes."""
    if source != "-":
        yield from zip(*formats.read_queries(Path(source), **reading), strict=True)
        return
    for part in formats.read(_stdin(), chunk_items=1, labels=False, **reading):
        if isinstance(part, Rejected):
            raise FormatError(
                f"{part.where} of standard input is no query", why=part.reason, remedy="mend or remove it"
            )
        yield part.ids[0], part.vectors[0]


def _stdin() -> BinaryIO:
    """Standard input with a buffer of its own: a thread may wait in it for ever (batches.py), and an interpreter that
    ends aborts if it cannot lock that of `sys.stdin`.
    """
    try:
        return open(sys.stdin.fileno(), "rb", closefd=False)
    except io.UnsupportedOperation:  # something else stands in for it
        return sys.stdin.buffer


def _answers(
    index: Index, batches: Iterator[list[Query]], exact: bool, plan: dict[str, Any]
) -> Iterator[tuple[str, Answer]]:
    """Each query with its answer. An exact search reads the whole index, so it does it once for all queries."""
    if exact:
        batches, plan = iter([[query for some in batches for query in some]]), {**plan, "exact": True}
    for some in filter(None, batches):
        ids, vectors = zip(*some, strict=True)
        try:
            yield from zip(ids, index.query(np.stack(vectors), **plan), strict=True)
        except UsageError as error:
            if len(some) > 1 and not exact:  # it is one query's fault; those before it have answers
                yield from _answers(index, ([query] for query in some), exact, plan)
                continue
            raise UsageError(
                f"query {ids[0]!r} cannot be answered" if not exact else "the queries cannot be answered",
                why=f"{error}: {error.why}",
                remedy=error.remedy,
            ) from error


def _as_json(query_id: str, answer: Answer, explain: bool) -> dict[str, Any]:
    """What scripts rely on; new keys may be added, these stay."""
    value: dict[str, Any] = {
        "query": query_id,
        "generation": answer.generation,
        "probes": answer.probes,
        "candidates": answer.candidates,
        "reranked": answer.reranked,
        "seconds": round(answer.seconds, 6),
        "results": [
            {"id": result.id, "score": result.score, "label": result.label}
            | ({} if result.metadata is None else {"metadata": result.metadata})
            for result in answer.results
        ],
        "radius": answer.radius,
        "widened": answer.widened,
    }
    if answer.matched is not None:
        value["matched"], value["scanned"] = answer.matched, answer.scanned
    if explain:
        value["codes"] = answer.codes
        value["buckets"] = answer.buckets
        value["tuned"] = None if answer.tuned is None else dict(zip(("budget", "fetch"), answer.tuned, strict=True))
        value["stages"] = {stage: round(seconds, 6) for stage, seconds in answer.stages.items()}
    return value


def _print(query_id: str, answer: Answer, bits: int | None) -> None:
    """A table for people; `bits` of a code when the answer is to be explained."""
    title = f"query {query_id}"
    if answer.widened:
        title += f" (radius widened to {answer.radius})"
    rows = [
        [rank, result.id, f"{result.score:.6f}", _label(result.label)] for rank, result in enumerate(answer.results, 1)
    ]
    table(["rank", "id", "score", "label"], rows, title=title)
    if bits is not None:
        explained: list[tuple[str, object]] = [("generation", answer.generation)]
        explained += [(f"code of table {number}", f"{code:0{bits}b}") for number, code in enumerate(answer.codes)]
        explained += [("radius", "-" if answer.radius is None else answer.radius)]
        explained += [("probes", answer.probes), ("buckets", f"{answer.buckets} not empty")]
        if answer.tuned is not None:
            explained += [("tuned", "budget {}, fetch {}".format(*answer.tuned))]
        explained += [("candidates", answer.candidates), ("reranked", answer.reranked)]
        if answer.matched is not None:
            explained += [("matched", answer.matched), ("scanned", answer.scanned)]
        explained += [(stage, f"{seconds * 1e3:.2f} ms") for stage, seconds in answer.stages.items()]
        pairs([*explained, ("in all", f"{answer.seconds * 1e3:.2f} ms")])
    line("")


def _label(label: Any) -> str:
    if label is None:
        return "-"
    return ", ".join(map(str, label)) if isinstance(label, list) else str(label)

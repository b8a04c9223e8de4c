"""tune: what searches of an index find and cost, and which of them is cheap and good enough."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from stream_hash.cli.options import json_option, opened, server_options
from stream_hash.cli.output import json_line, line, pairs, progress, table
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.service.tuning import GROWTH, Setting, Tuning

_SHARE = click.FloatRange(0, 1, min_open=True)


@click.command(short_help="Measure searches, and choose the cheapest that is good enough.")
@click.argument("name")
@click.option("--target-recall", type=_SHARE, help="Share of the k nearest items that is to be found.")
@click.option("--target-precision", type=_SHARE, help="Share of labelled answers that is to share the query's label.")
@click.option("-k", "k", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Answers a query.")
@click.option("--queries", type=click.IntRange(10, 10_000), default=200, show_default=True, help="Items to ask for.")
@click.option("--sample", type=click.IntRange(min=1), help="Seek true neighbours among so many items. [default: all]")
@click.option("--save", is_flag=True, help="Have the index searched by what is chosen.")
@click.option("--reset", is_flag=True, help="Have the index searched by the defaults again, and measure nothing.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draws.")
@json_option
@server_options
def tune(
    environment: Environment,
    name: str,
    target_recall: float | None,
    target_precision: float | None,
    k: int,
    queries: int,
    sample: int | None,
    save: bool,
    reset: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what each budget and fetch finds and costs, and choose the cheapest that reaches a target.

    The queries are items of the index, each left out of its own answers. The truth is an exact search of
    all items, or of a random --sample: then the nearest k·sample/items of it stand for the k nearest of all. Every
    query is asked alone, from this machine; other work on either makes it slower.

    \b
    recall@k     share of the k nearest that were found; ± is its standard error over the queries
    precision@k  of the answers that have a label, the share with one of the query's
    fetched      vectors that were read and ranked

    With --save, queries that say nothing else are answered by what was chosen: by all who open the index, and within
    a minute by those who have. Tune again when the index has grown a lot, or after training.

    \b
    Example:
      stream-hash tune photos --target-recall 0.9 --save
    """
    targets = [target for target in (target_recall, target_precision) if target is not None]
    if reset and (save or targets):
        raise click.UsageError("--reset goes alone.")
    if len(targets) > 1:
        raise click.UsageError("Give one of --target-recall and --target-precision.")
    if save and not targets:
        raise click.UsageError("--save goes with --target-recall or --target-precision.")
    index = Index(name, opened(environment))
    if reset:
        _reset(index, as_json)
        return
    with progress(f"tuning {name}") as show:
        tuning = index.tune(
            k,
            target_recall=target_recall,
            target_precision=target_precision,
            queries=queries,
            sample=sample,
            seed=seed,
            show=show,
        )
    saved = save and tuning.chosen is not None
    if saved:
        index.save_plan(tuning)
    (_print_json if as_json else _print)(tuning, saved)
    if targets:
        tuning.required()


def _reset(index: Index, as_json: bool) -> None:
    plan = index.plan
    index.forget_plan()
    if as_json:
        json_line({"index": index.name, "forgotten": None if plan is None else asdict(plan)})
    elif plan is None:
        line("nothing was saved")
    else:
        line(f"forgot budget {plan.budget}, fetch {plan.fetch}")


def _print_json(tuning: Tuning, saved: bool) -> None:
    """A line of facts, a line a setting, a line of what was chosen. Keys may be added, these stay."""
    facts = ("index", "generation", "items", "k", "queries", "labelled", "truth_items", "truth_k", "truth_whole")
    json_line({name: getattr(tuning, name) for name in facts} | {"memory": _memory(tuning)})
    for one in tuning.settings:
        json_line(_row(one))
    chosen = tuning.chosen
    predicted = {str(times): round(tuning.seconds_at(times), 6) for times in GROWTH} if chosen else None
    json_line(
        {
            "measure": tuning.measure,
            "target": tuning.target,
            "chosen": None if chosen is None else _row(chosen),
            "saved": saved,
            "predicted_seconds": predicted,
            "prediction_error": round(tuning.cost.error, 4),
            "exact_seconds": round(tuning.exact_seconds, 6),
        }
    )


def _memory(tuning: Tuning) -> dict[str, Any]:
    found = tuning.bytes_an_item
    return {"vector_bytes": tuning.vector_bytes, "bytes_an_item": None if found is None else round(found, 1)}


def _row(one: Setting) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(one).items()}


def _print(tuning: Tuning, saved: bool) -> None:
    line(
        f"{tuning.index}: {tuning.items} items, generation {tuning.generation}; {tuning.queries} of them asked, "
        f"{tuning.labelled} labelled; {_truth(tuning)}"
    )
    k = tuning.k
    rows = [_cells(one, chosen=one is tuning.chosen) for one in tuning.settings]
    quality = (f"recall@{k}", "±", f"precision@{k}", "±")
    table(["budget", "fetch", *quality, "candidates", "probes", "fetched", "p50 ms", "p95 ms", ""], rows)
    line("")
    exact = f"{1e3 * tuning.exact_seconds:.2f} ms"
    pairs([*_chosen(tuning, saved), ("exact", exact), ("memory", _memory_words(tuning))])


def _truth(tuning: Tuning) -> str:
    if tuning.truth_whole:
        return f"truth: exact search of {tuning.truth_items} items"
    return f"truth: the nearest {tuning.truth_k} of {tuning.truth_items} items drawn at random, for {tuning.k} of all"


def _cells(one: Setting, *, chosen: bool) -> list[object]:
    return [
        one.budget,
        one.fetch,
        f"{one.recall:.3f}",
        f"{one.recall_error:.3f}",
        "-" if one.precision is None else f"{one.precision:.3f}",
        "-" if one.precision_error is None else f"{one.precision_error:.3f}",
        f"{one.candidates:.0f}",
        f"{one.probes:.0f}",
        f"{one.reranked:.0f}",
        f"{1e3 * one.p50:.2f}",
        f"{1e3 * one.p95:.2f}",
        "chosen" if chosen else "",
    ]


def _chosen(tuning: Tuning, saved: bool) -> list[tuple[str, object]]:
    if tuning.chosen is None or tuning.measure is None:
        return []
    one, measure = tuning.chosen, tuning.measure
    reached = f"{measure}@{tuning.k} {one.reached(measure):.3f} ± {one.error(measure):.3f}"
    times = ", ".join(f"{1e3 * tuning.seconds_at(times):.1f} ms at {times} times the items" for times in GROWTH)
    return [
        ("chosen", f"budget {one.budget}, fetch {one.fetch}: {reached}, the target is {tuning.target:g}"),
        ("saved", "yes: queries use it unless they say otherwise" if saved else "no: give --save"),
        ("predicted", f"{times}, budget and fetch growing alike (fitted, mean error {tuning.cost.error:.0%})"),
    ]


def _memory_words(tuning: Tuning) -> str:
    found = tuning.bytes_an_item
    if found is None:
        return f"{tuning.vector_bytes} bytes a vector; the server does not tell about the rest"
    many = ", ".join(f"{found * tuning.items * times / 1e6:.0f} MB at {times} times the items" for times in GROWTH)
    return f"{found:.0f} bytes an item, of these {tuning.vector_bytes} the vector; {many}"

"""train, generations, rollback, reindex: learning, and what has been learned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import click

from stream_hash.cli.options import json_option, opened, server_options, throttle_option
from stream_hash.cli.output import json_line, line, note, progress, table
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.queue.arguments import LEARNERS, MAX_ITEMS
from stream_hash.service import asking
from stream_hash.service.trainer import Doing

NO_TRAINER: Final = "no trainer is running; start one: stream-hash trainer"

wait_option = click.option("--wait/--no-wait", default=True, show_default=True, help="Return when all of it is live.")
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), default=3_600.0, show_default=True, help="Seconds to wait."
)


@click.command(short_help="Learn hash functions, from labels or without, and swap them in.")
@click.argument("name")
@click.option("--learner", type=click.Choice(LEARNERS), help="How the bits are learned. [default: pa]")
@click.option("--unlabelled", is_flag=True, help="Learn without labels (ITQ), to find the nearest items.")
@click.option("--window", type=click.IntRange(1, MAX_ITEMS), help="Items to learn from. [default: 20000]")
@click.option("--force", is_flag=True, help="Let it go live even if it finds no more than what is live.")
@click.option("--dry-run", is_flag=True, help="Learn and measure, and change nothing.")
@wait_option
@timeout_option
@json_option
@server_options
def train(
    environment: Environment,
    name: str,
    learner: str | None,
    unlabelled: bool,
    window: int | None,
    force: bool,
    dry_run: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Learn hash functions from the labels of an index, and re-index it if they find more than those that are live.

    Whether they do is measured on labelled items that nothing was learned from. Exit code 0 also when they do not
    and are refused; why is said, and kept (`stream-hash generations NAME`). Items may arrive and queries be asked
    all the while. A running trainer does the work, or else this process.

    --unlabelled learns from any items, and is measured by how many of the exact nearest are found: where there are no
    labels, or where the nearest are wanted rather than what shares a label.

    \b
    Example:
      stream-hash train photos
      stream-hash train photos --learner ridge --dry-run --json
      stream-hash train photos --unlabelled
    """
    if unlabelled and learner:
        raise click.UsageError("--learner is for labels; leave it out with --unlabelled.")
    connections = opened(environment)
    Index(name, connections)  # whether there is one
    given: dict[str, Any] = {"learner": learner, "window": window, "force": force or None, "dry_run": dry_run or None}
    given["unlabelled"] = unlabelled or None
    plan = {field: value for field, value in given.items() if value is not None}
    alive = asking.trainers(connections)
    if not wait:
        request = asking.request_training(connections, name, plan)
        if not alive:
            note(NO_TRAINER)
        if as_json:
            json_line({"index": name, "request": request})
        else:
            line(f"asked for: {request}")
        return
    with _shown(f"training {name}") as show:
        if alive:
            request = asking.request_training(connections, name, plan)
            run = asking.wait_for(connections, name, request, timeout_seconds=timeout, on_doing=show)
        else:
            run = asking.train_here(connections, name, plan, timeout_seconds=timeout, on_doing=show)
    if as_json:
        json_line({"index": name, **run})
    else:
        line(_told(run))


@click.command(short_help="List the generations, and what became of each training.")
@click.argument("name")
@json_option
@server_options
def generations(environment: Environment, name: str, as_json: bool) -> None:
    """List the generations of an index, and the runs of training that were refused or skipped.

    Those that are kept can be rolled back to. --json has all figures.

    \b
    Example:
      stream-hash generations photos
    """
    rows = Index(name, opened(environment)).generations()
    if as_json:
        for row in rows:
            json_line({"index": name, **row})
        return
    columns = ["generation", "kind", "created", "state", "from", "precision", "trained", "held out", "reason"]
    table(columns, [_row(row) for row in rows])


@click.command(short_help="Go back to an earlier generation.")
@click.argument("name")
@click.argument("generation", type=click.IntRange(min=1))
@throttle_option
@wait_option
@timeout_option
@json_option
@server_options
def rollback(
    environment: Environment, name: str, generation: int, throttle: float, wait: bool, timeout: float, as_json: bool
) -> None:
    """Let the hash functions of an earlier generation go live again, under a new number.

    The ten newest generations are kept (`stream-hash generations NAME`). A re-index that is under way is given up.
    Trainers that run by schedule wait for new labels, as many or as long as after a training; stop them to keep the
    old generation for longer. With --no-wait, a trainer does the re-indexing.

    \b
    Example:
      stream-hash rollback photos 3
    """
    connections = opened(environment)
    with _shown(f"rolling {name} back") as show:
        new = asking.roll_back(
            connections, name, generation, throttle=throttle, wait=wait, timeout_seconds=timeout, on_doing=show
        )
    if not wait and not asking.trainers(connections):
        note(NO_TRAINER)
    if as_json:
        json_line({"index": name, "generation": new, "origin": generation, "live": wait})
    else:
        line(f"generation {new}, the model of {generation}, " + ("is live" if wait else "is to go live"))


@click.command(short_help="Go on with a re-index that was interrupted.")
@click.argument("name")
@click.option("--resume", is_flag=True, help="Go on where it stopped: the only way, and so to be given.")
@throttle_option
@wait_option
@timeout_option
@json_option
@server_options
def reindex(
    environment: Environment, name: str, resume: bool, throttle: float, wait: bool, timeout: float, as_json: bool
) -> None:
    """Go on with a re-index that was interrupted, with the help of the hash workers.

    A running trainer does so by itself within seconds; this is for when there is none. With --no-wait it only says
    what is unfinished.

    \b
    Example:
      stream-hash reindex photos --resume --throttle 0.25
    """
    if not resume:
        raise click.UsageError("A re-index is begun by train or rollback; to go on with one, give --resume.")
    connections = opened(environment)
    index = Index(name, connections)
    if not wait:
        found = index.status()["reindex"]
        if found and not asking.trainers(connections):
            note(NO_TRAINER)
        live = found["generation"] if found else None
    else:
        with _shown(f"re-indexing {name}") as show:
            live = asking.resume(connections, name, throttle=throttle, timeout_seconds=timeout, on_doing=show)
    if as_json:
        json_line({"index": name, "generation": live, "live": wait and live is not None})
    elif live is None:
        line("nothing is unfinished")
    else:
        line(f"generation {live} " + ("is live" if wait else "is to go live"))


@contextlib.contextmanager
def _shown(text: str) -> Iterator[Callable[[Doing], None]]:
    """Show what a trainer is doing, on a terminal."""
    with progress(text) as show:
        yield lambda doing: show(f"{text}: {_words(doing)}")


def _words(doing: Doing) -> str:
    words = doing.phase if doing.generation is None else f"{doing.phase}, generation {doing.generation}"
    if not doing.of:
        return words
    bar = "█" * (20 * doing.done // doing.of)
    rate = f", {doing.rate:.0f} items/s" if doing.rate else ""
    return f"{words} {bar:░<20} {doing.done} of {doing.of}{rate}"


def _told(run: dict[str, Any]) -> str:
    learned = f"learned from {run['trained']} items"
    if run["generation"] is not None:
        return f"generation {run['generation']} is live, {learned}: {run['reason']}"
    return f"{run['decision']}: {run['reason']}"


def _row(row: dict[str, Any]) -> list[object]:
    run = row["run"] or {}
    created = datetime.fromtimestamp(row["created"], UTC).strftime("%Y-%m-%d %H:%M:%S")
    origin = f"model of {row['origin']}" if row["origin"] else row["parent"] or "-"
    reason = run.get("reason", "-")
    precision = f"{row['quality']['precision']:.2f}" if row["quality"] else "-"
    figures = [precision, run.get("trained", "-"), run.get("held_out", "-")]
    return [row["generation"] or "-", row["kind"], created, row["state"], origin, *figures, reason]

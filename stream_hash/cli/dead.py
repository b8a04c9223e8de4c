"""dead, drop: what died in an index, and the index itself, got rid of or tried again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from stream_hash.cli.options import json_option, opened, server_options
from stream_hash.cli.output import json_line, line, note, pairs, table
from stream_hash.client import Index
from stream_hash.environment import Environment
from stream_hash.errors import StreamHashError
from stream_hash.service.dead_letters import Buried, Dealt

SHOWN_LETTERS: Final = 100
SHOWN_IDS: Final = 3
"""Ids of a dead letter in the table; --json gives all."""

SHOWN_COORDINATES: Final = 4

PARTLY: Final = 3
"""Exit code when some of the letters were left as they were."""

letters_argument = click.argument("letters", metavar="[LETTER]...", nargs=-1, type=click.IntRange(min=1))
all_option = click.option("--all", "every", is_flag=True, help="All letters.")
reason_option = click.option("--reason", metavar="TEXT", help="All letters whose reason contains this.")


@click.group(short_help="List, show, retry or drop what no worker could store.")
def dead() -> None:
    """List, show, retry or drop dead letters: refused items, and batches that failed each time.

    A letter is known by the sequence number of its first item.

    \b
    Example:
      stream-hash dead list photos
      stream-hash dead show photos 1205
      stream-hash dead retry photos 1205
    """


@dead.command("list", short_help="List the oldest, with their reasons.")
@click.argument("name", metavar="INDEX")
@click.option("--limit", type=click.IntRange(min=1), default=SHOWN_LETTERS, show_default=True, help="How many.")
@click.option("--reasons", "by_reason", is_flag=True, help="Count them by reason, in place of listing them.")
@json_option
@server_options
def list_(environment: Environment, name: str, limit: int, by_reason: bool, as_json: bool) -> None:
    """List the oldest dead letters of an INDEX with their reasons, or count all of them by reason.

    \b
    Example:
      stream-hash dead list photos
      stream-hash dead list photos --reasons
    """
    index = Index(name, opened(environment))
    if by_reason:
        found = [asdict(reason) for reason in index.dead_reasons()]
        if as_json:
            for one in found:
                json_line(one)
        elif found:
            keys = ("letters", "items", "first", "reason")
            table(keys, [[one[key] for key in keys] for one in found])
        else:
            line("no dead letters")
        return
    print_letters(index.dead_letters(limit), limit, as_json)


def print_letters(letters: Sequence[Buried], limit: int, as_json: bool) -> None:
    """Print dead letters, of which there may be more when they are `limit`."""
    if as_json:
        for letter in letters:
            json_line(asdict(letter))
    elif letters:
        rows = [[letter.first, letter.items, _ids(letter.ids), letter.reason, letter.batch] for letter in letters]
        table(["first", "items", "ids", "reason", "batch"], rows)
    else:
        line("no dead letters")
    if len(letters) == limit:
        note(f"the oldest {limit}; there may be more")


def _ids(ids: list[str]) -> str:
    return ", ".join(ids[:SHOWN_IDS]) + (f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else "")


@dead.command("show", short_help="Show what one holds.")
@click.argument("name", metavar="INDEX")
@click.argument("letter", type=click.IntRange(min=1))
@json_option
@server_options
def show(environment: Environment, name: str, letter: int, as_json: bool) -> None:
    """Show what a dead LETTER of an INDEX holds, and whether it can be retried.

    \b
    Example:
      stream-hash dead show photos 1205 --json
    """
    found = Index(name, opened(environment)).dead_letter(letter)
    if found is None:
        raise StreamHashError(
            f"index {name!r} has no dead letter {letter}",
            why="it was retried or dropped, or never was",
            remedy=f"stream-hash dead list {name}",
        )
    of_letter = {key: value for key, value in asdict(found.letter).items() if key != "ids"}
    if as_json:
        json_line({**of_letter, "retriable": found.retriable, "operation": found.operation, "contents": found.contents})
        return
    retriable = (
        "in its place" if found.retriable else "-" if found.contents is None else "as the newest write (--as-new)"
    )
    pairs([*of_letter.items(), ("operation", found.operation or "-"), ("retriable", retriable)])
    line("")
    if found.contents is None:
        line("its payload is damaged")
    else:
        keys = list(found.contents[0])
        table(keys, [[_cell(key, one[key]) for key in keys] for one in found.contents])


def _cell(key: str, value: Any) -> object:
    if value is None:
        return "-"
    if key != "vector":
        return value
    more = f", … ({len(value)})" if len(value) > SHOWN_COORDINATES else ""
    return ", ".join(x if isinstance(x, str) else f"{x:.4g}" for x in value[:SHOWN_COORDINATES]) + more


@dead.command("retry", short_help="Have them applied after all.")
@click.argument("name", metavar="INDEX")
@letters_argument
@all_option
@reason_option
@click.option("--as-new", is_flag=True, help="As if sent again now: also what has lapsed, and over what is newer.")
@click.option("--wait", is_flag=True, help="Return when all of them are applied, or dead again.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds to wait at the most."
)
@json_option
@server_options
def retry(
    environment: Environment,
    name: str,
    letters: tuple[int, ...],
    every: bool,
    reason: str | None,
    as_new: bool,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> int:
    """Have dead letters of an INDEX applied after all: when what was wrong is mended.

    They keep their place in the order of writes. What was written, labelled or deleted since then stays; what cannot
    be stored now either is dead again. A letter that has lapsed has lost its place (very many deletes came after it):
    it can be sent again --as-new, or dropped. Exit code 3 when some were left as they were or are dead again, 1 when
    all were left.

    \b
    Example:
      stream-hash dead retry photos 1205 --wait
      stream-hash dead retry photos --reason 'is full'
    """
    index = Index(name, opened(environment))
    dealt = index.retry_dead(_chosen(index, letters, every, reason), anew=as_new)
    if not wait:
        return _told(name, "retried", dealt, as_json)
    index.wait_for(dealt.batches, timeout_seconds=timeout)
    return _told(name, "retried", dealt, as_json, again=index.dead_again(dealt))


@dead.command("drop", short_help="Give them up for good.")
@click.argument("name", metavar="INDEX")
@letters_argument
@all_option
@reason_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@server_options
def drop_letters(
    environment: Environment,
    name: str,
    letters: tuple[int, ...],
    every: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
) -> int:
    """Give dead letters of an INDEX up for good; their items are counted as dropped.

    \b
    Example:
      stream-hash dead drop photos 1205 --yes
      stream-hash dead drop photos --all --yes
    """
    index = Index(name, opened(environment))
    chosen = _chosen(index, letters, every, reason)
    if chosen and not yes:
        confirm(f"Drop {_count(len(chosen), 'dead letter')} of index {name!r} for good?", "--yes")
    return _told(name, "dropped", index.drop_dead(chosen), as_json)


def _chosen(index: Index, letters: Sequence[int], every: bool, reason: str | None) -> list[int]:
    """The letters that a command names, in one of three ways."""
    if bool(letters) + every + (reason is not None) != 1:
        raise click.UsageError("Name the letters by their numbers, by --reason TEXT or by --all.")
    return list(dict.fromkeys(letters)) if letters else index.dead_numbers(reason)


def _told(name: str, done: str, dealt: Dealt, as_json: bool, *, again: int | None = None) -> int:
    """Say what became of letters; the exit code. again : how many items died again, if that was waited for."""
    left = {"missing": dealt.missing, "lapsed": dealt.lapsed, "damaged": dealt.damaged}
    if as_json:
        died = {} if again is None else {"dead_again": again}
        json_line({"index": name, done: dealt.letters, "items": dealt.items, **died, **left})
    else:
        died_again = "" if again is None else f", of which {again} died again"
        line(f"{done} {_count(dealt.letters, 'letter')} with {_count(dealt.items, 'item')}{died_again}")
    for numbers, why in (
        (dealt.missing, "there is no such dead letter (any more)"),
        (dealt.lapsed, "it has lapsed; to send it again as the newest write: --as-new"),
        (
            dealt.damaged,
            f"its payload is damaged; stream-hash dead drop {name} {' '.join(map(str, dealt.damaged[:10]))}",
        ),
    ):
        for number in numbers[:SHOWN_LETTERS]:
            note(f"letter {number}: {why}")
    if not dealt.undone and not again:
        return 0
    return PARTLY if dealt.letters else 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def confirm(question: str, option: str) -> None:
    """Ask, on stderr; return when the answer is yes. Raises StreamHashError when it is no, UsageError without any."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        raise click.UsageError(f"Nobody answers; give {option} to do it without being asked.") from None
    if not agreed:
        raise StreamHashError("nothing was changed", why="the answer was no", remedy=f"answer y, or give {option}")


@click.command(short_help="Delete an index, with all its items.")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@server_options
def drop(environment: Environment, name: str, yes: bool, as_json: bool) -> None:
    """Delete an index with all its items and generations, for good.

    Workers and producers that still have it in hand write nothing more, and say that it is gone. If this is stopped
    half-way, the index cannot be used any more, and the same command goes on.

    \b
    Example:
      stream-hash drop photos --yes
    """
    from stream_hash.cli.output import progress

    connections = opened(environment)
    items = Index.droppable(name, connections)
    if not yes:
        what = "an index that is being dropped already" if items is None else f"index {name!r} with {items} items"
        confirm(f"Delete {what} for good?", "--yes")
    with progress(f"deleting index {name}") as show_progress:
        keys = Index.drop(name, connections, on_deleted=_counted(name, show_progress))
    if as_json:
        json_line({"index": name, "keys": keys})
    else:
        line(f"dropped index {name!r}: {keys} keys")


def _counted(name: str, show_progress: Callable[[str], None]) -> Callable[[int], None]:
    return lambda deleted: show_progress(f"deleting index {name}: {deleted} keys")

"""The protocol under simulated faults: any number of deployments, and each rule taken out until one notices.

A deployment is producers, workers, two trainers and searches over a small index, on the product's own code and scripts,
with kills, pauses, lost replies and script flushes between any two commands (tests/faults/world.py).
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.report import machine, progress, publish, table

TESTS = Path(__file__).parent.parent / "tests"
BLOCK = 50

sys.path[:0] = [str(TESTS), *(str(TESTS / name) for name in ("storage", "faults"))]

_client: Any = None


def measure(seeds: int, first: int, mutants: Sequence[str], within: int, processes: int) -> dict[str, Any]:
    """All figures of this benchmark. mutants : the names of the rules that are taken out, each in its turn."""
    start = time.perf_counter()
    with _pool(processes) as pool:
        events: Counter[str] = Counter()
        violations: list[list[Any]] = []
        blocks = [(n, min(n + BLOCK, first + seeds)) for n in range(first, first + seeds, BLOCK)]
        for done, (happened, wrong) in enumerate(pool.imap_unordered(_run_block, blocks), 1):
            events.update(happened)
            violations += wrong
            if done % 10 == 0:
                progress(f"{done * BLOCK} seeds, {len(violations)} violations")
        seconds = time.perf_counter() - start
        caught = []
        for name, seed, how in pool.imap_unordered(_catch, [(name, within) for name in mutants]):
            progress(f"{name}: {seed}")
            caught.append([name, seed, how])
    return {
        "machine": machine(),
        "seeds": [first, first + seeds],
        "processes": processes,
        "seconds": seconds,
        "events": dict(sorted(events.items())),
        "violations": sorted(violations),
        "within": within,
        "mutants": sorted(caught, key=lambda one: one[1] or within + 1),
    }


@contextmanager
def _pool(processes: int) -> Iterator[Any]:
    """Processes with a server each; the servers end with the block."""
    import servers

    with tempfile.TemporaryDirectory(prefix="sh-") as directory:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        running = []
        for number in range(processes):
            place = Path(directory) / str(number)
            place.mkdir()
            running.append(servers.running_server(servers.bundled_binary(), place))
            queue.put(running[-1].__enter__())
        try:
            with context.Pool(processes, initializer=_connect, initargs=(queue,)) as pool:
                yield pool
        finally:
            for server in running:
                server.__exit__(None, None, None)


def _connect(urls: Any) -> None:
    global _client  # noqa: PLW0603 - what an initializer of a pool leaves, it leaves here
    from simulated_client import SimulatedClient

    _client = SimulatedClient(urls.get())


def _run_block(block: tuple[int, int]) -> tuple[Counter[str], list[list[Any]]]:
    """What happened in the deployments of a block, and (seed, what was wrong)."""
    from world import simulate

    events: Counter[str] = Counter()
    wrong = []
    for seed in range(*block):
        try:
            events.update(simulate(_client, seed))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a violation
            wrong.append([seed, _told(error)])
    return events, wrong


def _catch(mutant: tuple[str, int]) -> tuple[str, int | None, str]:
    """(name, how many seeds until it was caught, how). A seed counts only if with the rule in place nothing is wrong
    there: what fails anyway has not noticed the rule.
    """
    from simulated_mutants import mutated

    name, within = mutant
    for seed in range(within):
        with mutated(name) as scripts:
            how = _wrong(seed, scripts)
        if how is not None and _wrong(seed) is None:
            return name, seed + 1, how
    return name, None, ""


def _wrong(seed: int, scripts: Mapping[str, str] | None = None) -> str | None:
    """What is wrong in a deployment; None if nothing is."""
    from world import simulate

    try:
        simulate(_client, seed, scripts)
    except Exception as error:  # noqa: BLE001 - a rule that is missing may show as anything
        return _told(error)
    return None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ").replace("|", "/")[:100]


def _tables(result: dict[str, Any]) -> list[str]:
    count = result["seeds"][1] - result["seeds"][0]
    rows = [
        ("simulated deployments", "in all"),
        ("seeds", f"{count:,}"),
        ("violations (target: 0)", f"{len(result['violations']):,}"),
        ("seconds", f"{result['seconds']:,.0f} in {result['processes']} processes"),
        *((name, f"{number:,}") for name, number in result["events"].items()),
    ]
    tables = [table(rows)]
    if result["violations"]:
        tables.append(table([("seed", "what is wrong"), *((str(s), how) for s, how in result["violations"][:20])]))
    if result["mutants"]:
        missed = sum(seed is None for _, seed, _ in result["mutants"])
        told = (f"{len(result['mutants']):,}", f"{missed:,}")
        tables.append(table([("rules taken out", f"not caught within {result['within']:,} seeds (target: 0)"), told]))
        heading = ("without the rule", f"seeds until caught (target: {result['within']:,})", "how it showed")
        tables.append(table([heading, *((n, str(s or "not caught"), how) for n, s, how in result["mutants"])]))
    return tables


@click.command()
@click.option("--seeds", type=click.IntRange(min=0), default=10_000, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--mutants", is_flag=True, help="Take out each rule, too.")
@click.option("--mutant", "named", multiple=True, help="Take out this rule only; may be repeated.")
@click.option("--within", type=click.IntRange(min=1), default=1_000, show_default=True, help="Seeds for each mutant.")
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Not to standard output.")
def main(
    seeds: int,
    first: int,
    mutants: bool,
    named: tuple[str, ...],
    within: int,
    processes: int,
    json_file: Path | None,
) -> None:
    """Simulate deployments with faults between any two commands, and check every invariant.

    Example: python -m benchmarks.simulation --seeds 10000 --mutants
    """
    from simulated_mutants import NAMES

    if unknown := sorted(set(named) - set(NAMES)):
        raise click.BadParameter(f"no rule that is taken out is called {', '.join(unknown)}", param_hint="--mutant")
    result = measure(seeds, first, named or (NAMES if mutants else ()), within, processes)
    publish(result, _tables(result), json_file)
    sys.exit(bool(result["violations"]) or any(seed is None for _, seed, _ in result["mutants"]))


if __name__ == "__main__":
    main()

"""Ordinary life for long: a stream over ids that come again and again, queries, one generation after the other, and now
and then a fault. What is wrong shows in the account at the end; what leaks shows in the series of memory.

Receipts and answers, which a deployment keeps for an hour, are kept for KEPT_SECONDS, so that their number settles
within the warm-up. All else is as deployed. Of each kind of process the oldest is spared, so that it can be measured.

What is judged
1. The server by what it says it uses, but for its clients and its log, over contents that stay the same: the number of
   items is judged as well. Not by its resident size, which is only shown: a learner's state is one value of 8 MB that
   is written again and again, beside 15 MB of all else, and its pages come and go.
2. The other processes by their resident size: those that lived through the whole warm-up and to the end. One that was
   started later has a warm-up of its own, and nobody knows when it is over: a trainer grows threefold when it learns
   for the first time.
3. Something of each kind has to be there to be judged; a run in which nothing is, is not in order.
"""

from __future__ import annotations

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import redis

from benchmarks.chaos.processes import resident_bytes
from benchmarks.report import progress, table
from stream_hash.errors import StreamHashError
from stream_hash.service.handle import IndexHandle
from tests.faults.chaos_world import ChaosWorld
from tests.faults.killed_process import INDEX
from tests.faults.killed_traffic import Repeating

KEPT_SECONDS = 60
WARM_UP = 0.25
"""The share of the run that is not judged."""

LOG_LINES = 60
WINDOWS = 12
LOOKS_A_WINDOW = 40
FLAT = 0.05
"""The furthest that a window's median may be off the mean of all windows, as a share of it."""

JUDGED = ("items", "data", "supervisor", "hasher", "trainer", "producer")
STRUCK = {"hasher": 8, "trainer": 4, "producer": 4}
STOPPED = {**STRUCK, "server": 2, "supervisor": 1}


@dataclass(frozen=True)
class Look:
    """seconds : since the beginning. items : in the index. data : bytes that the server uses, but for its clients and
    its log. resident : bytes of each process, by what it is and its pid.
    """

    seconds: float
    items: int
    data: int
    resident: dict[tuple[str, int], int]


def measure(minutes: float, *, between_seconds: float, seed: int) -> dict[str, Any]:
    """A run of so many minutes. between_seconds : two faults, in the mean."""
    rng = np.random.default_rng([seed, 43])
    seconds = 60 * minutes
    with (
        tempfile.TemporaryDirectory(prefix="sh-") as folder,
        ChaosWorld(
            Path(folder), short_leases=False, seed=seed, variables={"CHAOS_KEPT_SECONDS": str(KEPT_SECONDS)}
        ) as world,
    ):
        watch = _Watch(world, f"{folder}/data/server.sock", seconds / (WINDOWS * LOOKS_A_WINDOW))
        watch.start()
        end, told = time.monotonic() + seconds, 0
        while (left := end - time.monotonic()) > 0:
            world.wait(min(left, float(rng.exponential(between_seconds))))
            if end - time.monotonic() > between_seconds:  # the last fault is over before the end
                if rng.random() < 0.5:
                    world.strike(1, pause_seconds=0.01, stops=0.0, weights=STRUCK, spare=True)
                else:
                    world.stop_one(STOPPED)
            if told != int((seconds - left) / 60):
                told = int((seconds - left) / 60)
                progress(f"{told} of {minutes:g} minutes")
        watch.end()
        settled = world.settle().figures()
        log = (Path(folder) / "fleet.log").read_text(errors="replace")
    series = _series(watch.looks, seconds)
    result = {"minutes": minutes, "kept_seconds": KEPT_SECONDS, **settled, "series": series, "spread": _spread(series)}
    result["in_order"] = (
        not settled["violations"]
        and not settled["failed_queries"]
        and settled["queries"] > 0
        and not _not_flat(result["spread"])
    )
    return result if result["in_order"] else {**result, "log": _told(log)}


def _told(log: str) -> list[str]:
    """Of a fleet's log what ended otherwise than by a kill, with what was said just before, and the last lines."""
    lines = log.splitlines()
    ends = [at for at, line in enumerate(lines) if re.search(r"ended with (?!-9\b)", line)]
    near = sorted({before for at in ends for before in range(max(0, at - 15), at + 1)})
    return [lines[at] for at in near[-LOG_LINES:]] + lines[-LOG_LINES:]


class _Watch(Repeating):
    """Looks at all processes in an interval."""

    def __init__(self, world: ChaosWorld, socket: str, interval_seconds: float) -> None:
        super().__init__()
        self._world, self._interval = world, interval_seconds
        self._client: Any = redis.Redis(unix_socket_path=socket)
        self._start = time.monotonic()
        self.looks: list[Look] = []

    def step(self) -> None:
        try:
            info = self._client.info("memory")
            items = sum(items for items, _ in IndexHandle(self._client, INDEX).reader.sizes())
        except (redis.RedisError, StreamHashError):
            self.ended.wait(0.2)
            return
        data = info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"]
        found = [(what, pid) for what, pids in self._world.processes().items() for pid in pids]
        resident = {(what, pid): size for what, pid in found if (size := resident_bytes(pid))}
        self.looks.append(Look(time.monotonic() - self._start, items, data, resident))
        self.ended.wait(self._interval)


def _series(looks: list[Look], seconds: float) -> list[dict[str, Any]]:
    """The medians of each window: of items and data, and of the processes that lived from the first one to the end."""
    first = [look.resident.keys() for look in looks if look.seconds < seconds / WINDOWS]
    there = sorted(set().union(*first) & looks[-1].resident.keys()) if looks else []
    names = {process: f"{process[0]} {process[1]}" for process in there}
    series = []
    for window in range(WINDOWS):
        start, end = seconds * window / WINDOWS, seconds * (window + 1) / WINDOWS
        inside = [look for look in looks if start <= look.seconds < end]
        if inside:
            resident = {
                name: float(np.median([look.resident[process] for look in inside if process in look.resident] or [0]))
                for process, name in names.items()
            }
            items, data = (float(np.median([getattr(look, name) for look in inside])) for name in ("items", "data"))
            own = {"minute": end / 60, "judged": start >= WARM_UP * seconds}
            series.append({**own, "items": items, "data": data, **resident})
    return series


def _spread(series: list[dict[str, Any]]) -> dict[str, float]:
    """How far the windows that are judged are from their mean, at the most, as a share of it."""
    judged = [row for row in series if row["judged"]]
    names = [name for name in series[-1] if name not in ("minute", "judged")] if judged else []
    values = {name: np.array([row[name] for row in judged]) for name in names}
    return {name: float(np.abs(own - own.mean()).max() / own.mean()) for name, own in values.items()}


def _not_flat(spread: dict[str, float]) -> list[str]:
    """What is judged and off its mean by more than FLAT, and kinds of which nothing is there to be judged."""
    judged = {name: share for name, share in spread.items() if _kind(name) in JUDGED}
    missing = set(JUDGED) - set(map(_kind, judged))
    return sorted(missing) + [name for name, share in judged.items() if not share <= FLAT]


def _kind(name: str) -> str:
    return name.partition(" ")[0]


def tables(result: dict[str, Any]) -> list[str]:
    spread = result["spread"]
    names = list(spread)
    heading = ("minute", *(name if name == "items" else f"{name}, MB" for name in names))
    series = [
        (
            f"{row['minute']:.1f}" + ("" if row["judged"] else " (warm-up)"),
            *(f"{row[name]:,.0f}" if name == "items" else f"{row[name] / 1e6:.2f}" for name in names),
        )
        for row in result["series"]
    ]
    series.append(
        (
            "off the mean at most",
            *(f"{spread[name]:.1%}" + " (not judged)" * (_kind(name) not in JUDGED) for name in names),
        )
    )

    def worst(*kinds: str) -> str:
        return f"{max((spread[name] for name in names if _kind(name) in kinds), default=float('nan')):.1%}"

    rows = [
        (f"{result['minutes']:g} minutes", "in all"),
        ("batches, items", f"{result['batches']:,}, {result['items']:,}"),
        ("generations that went live", f"{result['generations']:,}"),
        ("kills, stops", f"{sum(result['kills'].values()):,}, {sum(result['stops'].values()):,}"),
        ("queries answered", f"{result['queries']:,}"),
        ("queries failed while the server was up (target: 0)", f"{len(result['failed_queries']):,}"),
        ("answers and items that were wrong (target: 0)", f"{len(result['violations']):,}"),
        ("items off their mean, after the warm-up (target: at most 5%)", worst("items")),
        ("data on the server off their mean (target: at most 5%)", worst("data")),
        ("hash workers' memory off its mean (target: at most 5%)", worst("hasher")),
        ("trainers' memory off its mean (target: at most 5%)", worst("trainer")),
        ("producers' and supervisor's memory off its mean (target: at most 5%)", worst("producer", "supervisor")),
        ("what is not flat, or missing (target: none)", ", ".join(_not_flat(spread)) or "none"),
    ]
    return [table(rows), table([heading, *series])]

"""Replies lost after the server had done what was asked: whatever is sent again has no second effect.

A deployment's life (tests/faults/lost_replies.py) is lived again and again through a proxy that loses replies, every
other time also late ones, and what it leaves on the server is compared with what a life without losses leaves.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import redis

from benchmarks.report import progress, table
from stream_hash.storage.scripts import sources
from stream_hash.storage.server import EmbeddedServer
from tests.faults.lossy_proxy import Losses
from tests.faults.lost_replies import differences, never_called, run, run_losing

SLOW_SECONDS = 0.002
LIVES_A_LOSS = 6
"""So many lives at the most for each loss that is wanted: some calls come once in a life."""


def measure(wanted: int, *, seed: int) -> dict[str, Any]:
    """Live until each kind of call has lost its reply so often."""
    losses = Losses(wanted, seed)
    twice: list[str] = []
    lives = 0
    with tempfile.TemporaryDirectory(prefix="sh-") as folder:
        server = EmbeddedServer(Path(folder) / "data")
        server.start()
        try:
            socket = server.directory / "server.sock"
            client = redis.Redis(unix_socket_path=str(socket))
            expected = run(client, server.url)
            while lives == 0 or (losses.left and lives < LIVES_A_LOSS * wanted + 10):
                lives += 1
                slow = SLOW_SECONDS * (lives % 2)
                try:
                    found = run_losing(client, socket, Path(folder), losses, slow=slow)
                    twice += [f"life {lives}: {difference}" for difference in differences(expected, found)]
                except Exception as error:  # noqa: BLE001 - whatever it is, it is told with the others
                    twice.append(f"life {lives}: {type(error).__name__}: {error}")
                if lives % 10 == 0:
                    progress(f"{lives} lives, {sum(losses.left.values()):,} losses to come")
        finally:
            server.stop()
    unseen = never_called(losses.seen.keys())
    return {
        "wanted": wanted,
        "in_order": not (twice or losses.left or unseen),
        "lives": lives,
        "calls": [
            {"kind": kind, "script": kind in sources(), "seen": losses.seen[kind], "lost": losses.lost[kind]}
            for kind in sorted(losses.seen)
        ],
        "left": losses.left,
        "scripts_never_called": unseen,
        "twice": twice,
    }


def tables(result: dict[str, Any]) -> list[str]:
    calls = sorted(result["calls"], key=lambda call: (not call["script"], call["kind"]))
    fewest = min((call["lost"] for call in calls), default=0)
    rows = [
        ("lives of a deployment", f"{result['lives']:,}"),
        ("kinds of calls, of which scripts", f"{len(calls)}, {sum(call['script'] for call in calls)}"),
        ("replies lost", f"{sum(call['lost'] for call in calls):,}"),
        (f"of each kind of call, at least (target: {result['wanted']:,})", f"{fewest:,}"),
        ("scripts that were never called (target: 0)", f"{len(result['scripts_never_called']):,}"),
        ("second effects (target: 0)", f"{len(result['twice']):,}"),
    ]
    kinds = [(call["kind"], f"{call['seen']:,}", f"{call['lost']:,}") for call in calls]
    told = [("what was otherwise",), *((text.replace("|", "/")[:200],) for text in result["twice"][:20])]
    return [
        table(rows),
        table([("script or command", "calls", "replies lost"), *kinds]),
        *([table(told)] if result["twice"] else []),
    ]

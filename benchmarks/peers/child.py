"""The process of one peer: `python -m benchmarks.peers.child NAME FOLDER OUTPUT [URL]`.

FOLDER holds the task, OUTPUT is where the figures go as JSON: {"absent": why} when the peer is not installed in this
interpreter, otherwise its versions and, for every way of building, its cost and the timed searches. Imports nothing of
ours but what needs numpy alone, until the peer itself does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.catalogue import CATALOGUE
from benchmarks.peers.peer import Peer
from benchmarks.peers.task import Task
from benchmarks.peers.timing import timed

OWN = ("benchmarks", "stream_hash", "workers")


def run(name: str, folder: Path, url: str) -> dict[str, Any]:
    """All figures of one peer, or why there are none."""
    try:
        peer = CATALOGUE[name].load()
    except ImportError as error:
        if (error.name or "").partition(".")[0] in OWN:
            raise  # a fault of ours, not a peer that is missing
        return {"absent": f"{type(error).__name__}: {error}"}
    return {
        "versions": {distribution: version(distribution) for distribution in peer.DISTRIBUTIONS},
        "note": peer.NOTE,
        "builds": list(_measured(peer, Task.load(folder), url)),
    }


def _measured(peer: Peer, task: Task, url: str) -> Iterator[dict[str, Any]]:
    for built in peer.builds(task, url):
        print(f"… {built.name}: built", file=sys.stderr, flush=True)
        yield {
            "name": built.name,
            "ingest_seconds": built.ingest_seconds,
            "learning_seconds": built.learning_seconds,
            "index_bytes_per_item": built.index_bytes,
            "searches": [
                {"setting": setting, **timed(opener, task.queries, task.limits)}
                for setting, opener in built.searches.items()
            ],
            "facts": built.facts,
        }


if __name__ == "__main__":
    named, where, output, *server = sys.argv[1:]
    Path(output).write_text(json.dumps(run(named, Path(where), server[0] if server else "")), encoding="utf-8")

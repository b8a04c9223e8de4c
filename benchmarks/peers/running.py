"""Running peers: each in a process of its own, beside a fresh server if it needs one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from benchmarks.peers.catalogue import CATALOGUE
from benchmarks.peers.task import Task
from benchmarks.report import machine, progress
from benchmarks.services import running_server

ROOT = Path(__file__).parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"), "1")


def run(
    task: Task, names: Sequence[str], interpreters: dict[str, str]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The machine, and by name the figures of each peer, as child has written them.

    interpreters : of peers that live in an environment of their own.
    """
    figures = {}
    facts = machine()
    with tempfile.TemporaryDirectory(prefix="sh-peers-") as directory:
        folder = Path(directory)
        task.save(folder)
        for name in names:
            progress(name)
            with contextlib.ExitStack() as stack:
                url = []
                if CATALOGUE[name].on_server:
                    url = [stack.enter_context(running_server())]
                    with redis.Redis.from_url(url[0]) as client:
                        facts = machine(client)
                figures[name] = _child(interpreters.get(name, sys.executable), name, folder, url)
            for kind in ("absent", "failed"):
                if kind in figures[name]:
                    progress(f"{name} {kind}: {figures[name][kind]}")
    return facts, figures


def _child(interpreter: str, name: str, folder: Path, url: list[str]) -> dict[str, Any]:
    """What the process has written; {"failed": how} when it ended otherwise, so that the others' time is not lost."""
    output = folder / "figures.json"
    output.unlink(missing_ok=True)
    command = [interpreter, "-m", "benchmarks.peers.child", name, str(folder), str(output), *url]
    try:
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **ONE_THREAD}, check=False)
    except OSError as error:
        return {"absent": f"its interpreter cannot be run: {error}"}
    if done.returncode:
        return {"failed": f"its process ended with {done.returncode}, having said why"}
    figures: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return figures

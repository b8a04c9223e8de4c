"""Batches that kill whoever hashes them: buried after three deliveries, and everything else is applied meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream_hash.client import Index
from stream_hash.producer import Producer
from stream_hash.service.ingest import MAX_DELIVERIES
from stream_hash.settings import IndexSettings
from stream_hash.storage.tallies import Tallies
from tests.workers.poison import GREEDY, POISON


@pytest.fixture
def fleet(url: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A supervisor of two workers, which log into tmp_path / log."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "tests.workers.poison", url, "2"]
        process = subprocess.Popen(command, env=environment, stderr=log, start_new_session=True)
    yield process
    process.kill()  # and its workers leave with it
    process.wait()


def test_poison_is_buried_after_three_deliveries_and_the_fleet_goes_on(
    url: str, fleet: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    index = Index.create("x", IndexSettings(2, bits=4), url)
    producer = Producer("x", url, batch_items=1)
    producer.upsert("poison", [POISON, 1], label="a secret")
    producer.upsert("greedy", [GREEDY, 1])
    for number in range(20):
        producer.upsert(f"good-{number}", [1, number])
    producer.wait(60)
    found = {letter.ids[0]: letter.reason for letter in index.dead_letters()}
    assert found == {
        "poison": f"delivered {MAX_DELIVERIES} times without success; the worker died each time",
        "greedy": f"delivered {MAX_DELIVERIES} times without success; MemoryError: ",
    }
    status = index.status()
    assert (status["items"], status["applied"], status["dead"], status["pending"]) == (20, 20, 2, 0)
    assert index.verify().clean
    tallies = Tallies(producer._connections.client, "x").read()
    assert (tallies["failed:memory"], tallies["buried:exhausted"]) == (MAX_DELIVERIES, 2)
    assert tallies["retries"] == 2 * MAX_DELIVERIES
    assert fleet.poll() is None

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sum(line["event"] == "process.ended" and line["code"] == -11 for line in lines) == MAX_DELIVERIES
    applied = [line for line in lines if line["event"] == "batch.applied"]
    assert len(applied) == 20
    for line in applied:
        assert (line["index"], line["items"], line["generation"]) == ("x", 1, 1)
        assert line["batch"].startswith(producer._name)
        assert line["worker"]
        assert line["ms"] > 0
    (failed, *_) = [line for line in lines if line["event"] == "job.failed"]
    assert (failed["level"], failed["index"]) == ("error", "x")
    assert failed["exception"].endswith("MemoryError")
    text = (tmp_path / "log").read_text()
    assert "secret" not in text
    assert "31415926" not in text

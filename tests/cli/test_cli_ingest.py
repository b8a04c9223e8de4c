"""ingest: what is accepted, what is rejected, and how that is told."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream_hash.environment import Environment
from stream_hash.producer import Producer
from stream_hash.service.connections import Connections
from stream_hash.storage.ledger import DeadLetter, Ledger
from tests.cli.support import DIMENSION, Cli
from tests.servers import wait_until


def jsonl(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in objects)


@pytest.fixture
def empty(cli: Cli, name: str) -> str:
    cli("create", name, "--dim", 2)
    return name


@pytest.fixture
def unserved(idle: Cli, name: str) -> str:
    """An index on the server that has no workers."""
    idle("create", name, "--dim", 2)
    return name


def test_ingest_and_wait_makes_all_items_searchable(cli: Cli, name: str, archive: Path) -> None:
    cli("create", name, "--dim", DIMENSION)
    outcome = cli("ingest", name, archive, "--wait", "--json")
    assert outcome.code == 0
    assert list(outcome.json) == ["accepted", "rejected", "seconds"]
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (300, 0)
    assert outcome.json["seconds"] > 0
    assert outcome.err.endswith(" items/s\n")
    assert cli("status", name, "--json").json["items"] == 300
    assert cli("get", name, "item-13").json["label"] == 3


def test_without_json_the_counts_are_the_data_and_the_rate_goes_to_stderr(cli: Cli, empty: str) -> None:
    outcome = cli("ingest", empty, "-", stdin=jsonl({"id": "a", "vector": [1, 2]}))
    assert outcome.out == "accepted 1, rejected 0\n"
    assert outcome.err.startswith("1 items in ")


def test_stdin_is_read_as_a_file_is(cli: Cli, empty: str) -> None:
    lines = jsonl({"id": "a", "vector": [1, 2], "label": "x", "metadata": {"n": 1}}, {"id": 7, "vector": [3, 4]})
    assert cli("ingest", empty, "-", "--wait", stdin=lines).code == 0
    found = {item["id"]: item for item in cli("get", empty, "a", "7").lines}
    assert (found["a"]["label"], found["a"]["metadata"]) == ("x", {"n": 1})
    assert found["7"]["vector"] == [3, 4]


def test_csv_needs_its_format_named_on_stdin(cli: Cli, empty: str) -> None:
    text = b"id,label,x,y\na,3,1,2\n"
    refused = cli("ingest", empty, "-", stdin=text)
    assert (refused.code, refused.out) == (2, "")
    assert "fix: name the format" in refused.err
    assert cli("ingest", empty, "-", "--format", "csv", "--wait", stdin=text).code == 0
    assert cli("get", empty, "a").json["label"] == 3


def test_no_labels_leaves_them_out(cli: Cli, name: str, archive: Path) -> None:
    cli("create", name, "--dim", DIMENSION)
    cli("ingest", name, archive, "--wait", "--no-labels")
    assert cli("get", name, "item-13").json["label"] is None


def test_limit_counts_rows_over_all_files(cli: Cli, empty: str, tmp_path: Path) -> None:
    for file in ("a", "b"):
        (tmp_path / f"{file}.jsonl").write_bytes(jsonl(*({"id": f"{file}{n}", "vector": [n, 1]} for n in range(10))))
    outcome = cli("ingest", empty, tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--limit", 14, "--wait", "--json")
    assert outcome.json["accepted"] == 14
    assert cli("get", empty, "b3").code == 0
    assert cli("get", empty, "b4").code == 1


def test_a_dry_run_checks_against_the_index_and_sends_nothing(cli: Cli, empty: str) -> None:
    lines = jsonl({"id": "a", "vector": [1, 2]}, {"id": "b", "vector": [0, 0]}, {"id": "c", "vector": [1, 2, 3]})
    outcome = cli("ingest", empty, "-", "--dry-run", "--wait", "--json", stdin=lines)
    assert outcome.code == 3
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (1, 2)
    assert "item 'b': the vector's norm is 0; under cosine it has no direction" in outcome.err
    assert cli("status", empty, "--json").json["accepted"] == 0
    assert cli("ingest", empty, "-", "--dry-run", stdin=lines).out == "would accept 1, rejected 2\n"


def test_bad_rows_are_reported_and_the_good_ones_beside_them_live(cli: Cli, empty: str) -> None:
    lines = (
        b'{"id": "long", "vector": [1, 2, 3]}\n'
        b'{"id": "good", "vector": [1, 2]}\n'
        b'{"id": "nan", "vector": [NaN, 2]}\n'
        b"{not json\n"
        b'{"id": "good", "vector": [3, 4]}\n'
        b'{"id": "", "vector": [3, 4]}\n'
    )
    outcome = cli("ingest", empty, "-", "--wait", "--json", stdin=lines)
    assert outcome.code == 3
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (1, 5)
    told = [line for line in outcome.err.splitlines() if line.startswith("rejected: ")]
    assert [line.split(": ")[2] for line in told] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert "its vector has 3 coordinates and 2 are wanted" in told[0]
    assert "id 'good' already stood at line 2" in told[3]
    assert cli("get", empty, "good").json["vector"] == [1, 2]


def test_ten_rejections_are_told_and_the_others_counted(cli: Cli, empty: str) -> None:
    lines = jsonl(*({"id": f"i{n}", "vector": [0, int(n % 20 == 0)]} for n in range(40)))
    outcome = cli("ingest", empty, "-", "--json", stdin=lines)
    assert outcome.json["rejected"] == 38
    assert outcome.err.count("rejected: ") == 10
    assert "and 28 more, 38 rejected in all\n" in outcome.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.ones((3, 5)), "have 5 coordinates"),
        (np.array([{"a": 1}], dtype=object), "object"),
        (np.ones(3), "have shape (3,)"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_ends_with_1(
    cli: Cli, empty: str, tmp_path: Path, content: Any, message: str
) -> None:
    np.save(tmp_path / "bad.npy", content, allow_pickle=True)
    outcome = cli("ingest", empty, tmp_path / "bad.npy", "--json")
    assert (outcome.code, outcome.out) == (1, "")
    assert message in outcome.err
    assert "  fix: " in outcome.err


def test_a_missing_file_ends_with_1(cli: Cli, empty: str, tmp_path: Path) -> None:
    outcome = cli("ingest", empty, tmp_path / "missing.npy")
    assert (outcome.code, outcome.out) == (1, "")
    assert "does not exist" in outcome.err


def test_when_every_row_is_rejected_the_code_is_1(cli: Cli, empty: str) -> None:
    outcome = cli("ingest", empty, "-", "--json", stdin=jsonl({"id": "a", "vector": [0, 0]}))
    assert outcome.code == 1
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (0, 1)


def test_a_bad_file_does_not_keep_the_next_from_its_turn(cli: Cli, empty: str, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.ones((3, 5)))
    (tmp_path / "good.jsonl").write_bytes(jsonl({"id": "a", "vector": [1, 2]}))
    outcome = cli("ingest", empty, tmp_path / "wide.npy", tmp_path / "good.jsonl", "--wait", "--json")
    assert outcome.code == 3
    assert outcome.json["accepted"] == 1
    assert "wide.npy have 5 coordinates" in outcome.err


def test_a_truncated_file_keeps_what_came_before_the_cut(cli: Cli, empty: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.csv"
    path.write_text("id,x,y\na,1,2\nb,3\n")
    outcome = cli("ingest", empty, path, "--wait", "--json")
    assert (outcome.code, outcome.json["accepted"]) == (3, 1)
    assert cli("get", empty, "a").code == 0


def test_row_numbers_of_a_second_file_do_not_replace_those_of_the_first(cli: Cli, empty: str, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones((3, 2)))
    np.save(tmp_path / "two.npy", np.full((3, 2), 2.0))
    outcome = cli("ingest", empty, tmp_path / "one.npy", tmp_path / "two.npy", "--wait", "--json")
    assert outcome.code == 3
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (3, 3)
    assert "two.npy: id '0' already stood in another of the files" in outcome.err
    assert cli("get", empty, "0").json["vector"] == [1, 1]


def test_without_workers_waiting_says_so_and_ends_when_the_time_is_up(idle: Cli, unserved: str) -> None:
    lines = jsonl({"id": "a", "vector": [1, 2]})
    outcome = idle("ingest", unserved, "-", "--wait", "--timeout", 0.2, "--json", stdin=lines)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines() == [
        "no hash worker is running; start one: stream-hash worker",
        "1 items had been accepted by then",
        f"Error: 1 batches of index {unserved!r} are still pending",
        "  why: no worker finished them in 0.2 s",
        "  fix: start a hash worker: stream-hash worker",
    ]
    assert idle("status", unserved, "--json").json["pending"] == 1


def test_when_full_raise_ends_with_1_and_keeps_what_was_accepted(idle: Cli, unserved: str) -> None:
    lines = jsonl(*({"id": f"i{n}", "vector": [n, 1]} for n in range(1_010)))
    outcome = idle("ingest", unserved, "-", "--batch-items", 1, "--when-full", "raise", stdin=lines)
    assert (outcome.code, outcome.out) == (1, "")
    assert "1000 items had been accepted by then" in outcome.err
    assert "1000 batches are pending" in outcome.err
    assert "  fix: start more hash workers (stream-hash worker)" in outcome.err
    assert idle("status", unserved, "--json").json["pending"] == 1_000


def test_dead_letters_among_the_items_count_as_rejected(idle: Cli, unserved: str, serving: Path) -> None:
    ledger = Ledger(Connections.of(Environment(None, None, serving)).client, unserved)

    def bury_the_second_item() -> None:
        wait_until(lambda: ledger.lease_overdue(2**52, 2**52), what="a batch")
        (batch,) = ledger.lease_overdue(2**53, 2**53)
        delivery = ledger.begin(batch, lease_until=0)
        assert delivery is not None
        ledger.finish(batch, [DeadLetter(delivery.first + 1, 1, batch, "the partition is full", b"")])

    other = Producer(unserved, Connections.of(Environment(None, None, serving)))
    assert other.dead_letters() == []
    worker = threading.Thread(target=bury_the_second_item)
    worker.start()
    lines = jsonl({"id": "a", "vector": [1, 2]}, {"id": "b", "vector": [3, 4]})
    outcome = idle("ingest", unserved, "-", "--wait", "--json", stdin=lines)
    worker.join()
    assert outcome.code == 3
    assert (outcome.json["accepted"], outcome.json["rejected"]) == (1, 1)
    assert "the partition is full" in outcome.err
    assert other.dead_letters() == []

"""create, status, verify."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis

from stream_hash.cli.sparkline import sparkline
from stream_hash.service.handle import IndexHandle
from stream_hash.service.quality import Summary
from stream_hash.storage.connection import connect
from stream_hash.storage.ledger import DeadLetter, Ledger
from stream_hash.storage.live_quality import Figure
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import DIMENSION, Cli

SETTINGS = {
    "dimension": DIMENSION,
    "bits": 16,
    "tables": 1,
    "metric": "cosine",
    "dtype": "float32",
    "partitions": 1,
    "seed": 0,
}


def test_create_says_what_it_made_and_again_that_it_stands(cli: Cli, name: str) -> None:
    first = cli("create", name, "--dim", DIMENSION, "--json")
    assert (first.code, first.err) == (0, "")
    assert first.json == {"index": name, "created": True, **SETTINGS}
    again = cli("create", name, "--dim", DIMENSION, "--json")
    assert again.code == 0
    assert again.json == {"index": name, "created": False, **SETTINGS}
    assert cli("create", name, "--dim", DIMENSION).out == f"index {name!r} exists already, with these settings\n"


def test_create_passes_every_setting_on(cli: Cli, name: str) -> None:
    chosen = ["--bits", 12, "--tables", 3, "--metric", "l2", "--dtype", "float16", "--partitions", 2, "--seed", 9]
    made = cli("create", name, "--dim", 5, *chosen)
    assert made.out == f"created index {name!r}: 5 dimensions, 12 bits, 3 tables, l2\n"
    wanted = {"dimension": 5, "bits": 12, "tables": 3, "metric": "l2", "dtype": "float16", "partitions": 2, "seed": 9}
    assert wanted.items() <= cli("status", name, "--json").json.items()


def test_create_for_a_number_of_items_chooses_the_bits(cli: Cli, name: str) -> None:
    made = cli("create", name, "--dim", 5, "--items", 20_000)
    assert made.out == f"created index {name!r}: 5 dimensions, 11 bits, 1 table, cosine\n"
    assert cli("create", name, "--dim", 5, "--items", 20_000, "--json").json["created"] is False
    assert cli("create", name + "p", "--dim", 5, "--items", 20_000, "--partitions", 4, "--json").json["bits"] == 9
    outcome = cli("create", name + "q", "--dim", 5, "--items", 20_000_000)
    assert outcome.code == 2
    assert "more partitions" in outcome.err


def test_status_tells_how_many_bits_would_fit(cli: Cli, name: str, archive: Path) -> None:
    def create(index: str, bits: int) -> None:
        # which batch is hashed first varies, and so would a mean taken from it: --sample makes both indexes hash alike
        assert cli("create", index, "--dim", DIMENSION, "--bits", bits, "--sample", archive).code == 0
        assert cli("ingest", index, archive, "--wait").code == 0

    create(name, 10)
    found = cli("status", name, "--json").json
    assert found["mean_bucket"] < 8
    fitting = found["fitting_bits"]
    assert 1 < fitting < 10
    text = cli("status", name).out
    assert f"mean bucket      {found['mean_bucket']} (not 8 to 32: so many items want {fitting} bits)\n" in text
    assert "fitting" not in text
    create(name + "f", fitting)
    fitted = cli("status", name + "f", "--json").json
    assert 8 <= fitted["mean_bucket"] <= 32
    assert fitted["fitting_bits"] == fitting
    assert f"mean bucket      {fitted['mean_bucket']}\n" in cli("status", name + "f").out


def test_create_with_other_settings_fails_with_1_and_names_them(cli: Cli, name: str) -> None:
    cli("create", name, "--dim", DIMENSION)
    outcome = cli("create", name, "--dim", DIMENSION, "--bits", 8, "--json")
    assert (outcome.code, outcome.out) == (1, "")
    what, why, fix = outcome.err.splitlines()
    assert what == f"Error: index {name!r} exists with other settings"
    assert why == "  why: bits 16, not 8"
    assert fix.startswith("  fix: choose another name")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a:b", "--dim", "8"], "Error: the index name is 'a:b'"),
        (["a", "--dim", "0"], "Error: dimension is 0"),
        (["a", "--dim", "8", "--bits", "63"], "Error: bits is 63"),
        (["a", "--dim", "8", "--partitions", "0"], "Error: partitions is 0"),
    ],
)
def test_settings_out_of_bounds_are_usage_errors(cli: Cli, args: list[str], message: str) -> None:
    outcome = cli("create", *args)
    assert outcome.code == 2
    assert outcome.err.startswith(message)


def test_the_mean_of_a_sample_is_frozen_in_the_first_generation(cli: Cli, name: str, archive: Path) -> None:
    outcome = cli("create", name, "--dim", DIMENSION, "--sample", archive)
    assert (outcome.code, outcome.err) == (0, "")
    assert cli("status", name, "--json").json["generation"] == 1
    again = cli("create", name, "--dim", DIMENSION, "--sample", archive)
    assert again.code == 0
    assert again.err == "the sample is not used: the first generation stands already\n"


def test_a_sample_of_another_dimension_is_refused(cli: Cli, name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "sample.npy", np.ones((4, 3)))
    outcome = cli("create", name, "--dim", DIMENSION, "--sample", tmp_path / "sample.npy")
    assert outcome.code == 2
    assert "the sample has shape (4, 3)" in outcome.err
    assert cli("status", name).code == 5


def test_status_of_an_index_gives_its_settings_counts_and_balance(cli: Cli, index: str) -> None:
    found = cli("status", index, "--json").json
    assert list(found) == [
        *("index", "dimension", "bits", "tables", "metric", "dtype", "partitions", "seed"),
        *("items", "generation", "accepted", "applied", "pending", "pending_batches", "dead", "dropped"),
        *("building", "retiring", "reindex", "trainer", "training", "labelled", "labels_since", "quality"),
        *("generations", "buckets", "mean_bucket", "fitting_bits", "largest_bucket"),
        *("plan", "last_sequence"),
    ]
    assert (found["items"], found["accepted"], found["applied"]) == (300, 300, 300)
    assert (found["pending"], found["dead"], found["generation"]) == (0, 0, 1)
    assert [record["kind"] for record in found["generations"]] == ["lsh"]
    assert (found["labelled"], found["labels_since"]) == (300, 300)
    assert (found["building"], found["retiring"], found["reindex"], found["training"]) == ([], [], None, None)
    text = cli("status", index).out
    assert "items            300\n" in text
    assert "generation  kind  created" in text


def test_status_of_the_server_names_engine_workers_queue_and_indexes(cli: Cli, index: str, working: Path) -> None:
    found = cli("status", "--json").json
    assert list(found) == ["server", "workers", "trainers", "queued", "indexes", "importing"]
    assert list(found["server"]) == [
        *("url", "engine", "version", "mode", "primaries", "memory_bytes", "max_memory_bytes")
    ]
    assert found["server"]["engine"] == "valkey"
    assert found["server"]["url"] == EmbeddedServer(working).url
    assert len(found["workers"]) == 2
    assert {"host", "pid", "state"} == set(found["workers"][0])
    (mine,) = [other for other in found["indexes"] if other["index"] == index]
    assert (mine["items"], mine["pending"], mine["dead"]) == (300, 0, 0)
    text = cli("status").out
    assert "workers   2 alive" in text
    assert "trainers  0 alive" in text
    assert any(line.split()[:2] == [index, "300"] for line in text.splitlines())


def test_status_and_generations_show_how_good_answers_were(idle: Cli, name: str, serving: Path) -> None:
    assert idle("create", name, "--dim", 2).code == 0
    assert "quality          -\n" in idle("status", name).out
    with connect(EmbeddedServer(serving).url) as client:
        handle = IndexHandle(client, name)
        handle.begin_first_generation(np.zeros((0, 2), np.float32))
        summary = Summary()
        for position in range(1, 201):
            summary.add(Figure(position, 1, 0.2 if position <= 100 else 0.6))
        assert handle.quality.fold(0, 201, summary.to_json())
    assert "quality          precision@10 0.60 (+0.40) ▂▂▂▂▅▅▅▅\n" in idle("status", name).out
    found = idle("status", name, "--json").json["quality"]
    assert (found["precision"], found["trend"], found["figures"], found["position"]) == (0.6, 0.4, 200, 200)
    assert found["points"][0] == [25, 0.2]
    (row,) = idle("generations", name, "--json").lines
    assert row["quality"] == {"precision": 0.4, "figures": 200}
    heads, cells = idle("generations", name).out.splitlines()
    assert heads.index("precision") + len("precision") == cells.index("0.40") + len("0.40")


def test_a_sparkline_joins_neighbours_and_has_one_scale() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 0.5, 0.99, 1.0]) == "▁▅██"
    assert sparkline([0.0, 0.5, 0.5, 1.0], width=2) == "▃▇"
    assert len(sparkline([0.1] * 399)) == 40


def test_dead_letters_are_shown_with_their_reasons(idle: Cli, name: str, serving: Path) -> None:
    assert idle("create", name, "--dim", 2).code == 0
    assert idle("status", name, "--dead").out == "no dead letters\n"
    assert idle("status", name, "--dead", "--json").out == ""
    items = b'{"id": "a\\u001b", "vector": [1, 2]}\n{"id": "b", "vector": [1, 2]}'
    assert idle("ingest", name, "-", stdin=items).code == 0
    with redis.Redis.from_url(EmbeddedServer(serving).url) as client:
        ledger = Ledger(client, name)
        (batch,) = ledger.lease_overdue(2**52, 2**52)
        delivery = ledger.begin(batch, lease_until=0)
        assert delivery is not None
        ledger.finish(batch, [DeadLetter(delivery.first, 2, batch, "the vector is odd", delivery.payload)])
    (letter,) = idle("status", name, "--dead", "--json").lines
    assert letter == {"ids": ["a\x1b", "b"], "reason": "the vector is odd", "batch": batch, "first": 1, "items": 2}
    text = idle("status", name, "--dead").out
    assert "\x1b" not in text
    assert text.splitlines()[0].split() == ["first", "items", "ids", "reason", "batch"]
    assert "the vector is odd" in text


def test_dead_letters_are_those_of_an_index(cli: Cli) -> None:
    outcome = cli("status", "--dead")
    assert outcome.code == 2
    assert "NAME" in outcome.err


def test_verify_of_a_sound_index_ends_with_0(cli: Cli, index: str) -> None:
    outcome = cli("verify", index, "--json")
    assert outcome.code == 0
    assert list(outcome.json) == ["index", "items", "buckets", "violations"]
    assert (outcome.json["items"], outcome.json["violations"]) == (300, [])
    assert cli("verify", index).out.startswith("300 items in ")


def test_verify_of_a_damaged_index_ends_with_1_and_says_what_is_broken(cli: Cli, index: str, working: Path) -> None:
    with redis.Redis.from_url(EmbeddedServer(working).url) as client:
        bucket = next(iter(client.scan_iter(f"sh:{{{index}:0}}:bucket:*")))
        client.delete(bucket)
    outcome = cli("verify", index, "--json")
    assert outcome.code == 1
    assert any("is missing from its bucket" in sentence for sentence in outcome.json["violations"])
    text = cli("verify", index)
    assert text.code == 1
    assert text.out.count("\n- ") == len(outcome.json["violations"])


@pytest.mark.parametrize(
    "args",
    [
        ["status", "nowhere"],
        ["verify", "nowhere"],
        ["query", "nowhere", "--id", "a"],
        ["get", "nowhere", "a"],
        ["delete", "nowhere", "a"],
        ["label", "nowhere", "a", "b"],
        ["ingest", "nowhere", "-"],
        ["train", "nowhere"],
        ["train", "nowhere", "--no-wait"],
        ["generations", "nowhere"],
        ["rollback", "nowhere", "1"],
        ["reindex", "nowhere", "--resume"],
    ],
)
def test_an_unknown_index_ends_with_5_and_the_command_that_makes_it(cli: Cli, args: list[str]) -> None:
    outcome = cli(*args)
    assert (outcome.code, outcome.out) == (5, "")
    what, why, fix = outcome.err.splitlines()
    assert what == "Error: there is no index 'nowhere'"
    assert why.startswith("  why: this server has")
    assert fix == "  fix: stream-hash create nowhere --dim D"

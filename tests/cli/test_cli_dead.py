"""dead and drop: what they print, what they change, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from stream_hash.storage.ledger import DeadLetter, Ledger
from stream_hash.storage.server import EmbeddedServer
from tests.cli.support import Cli

ITEMS = b'{"id": "a", "vector": [1, 2], "label": "cat"}\n{"id": "b\\u001b", "vector": [3, 4]}'


@pytest.fixture
def ledger(serving: Path, name: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(EmbeddedServer(serving).url) as client:
        yield Ledger(client, name)


def bury(idle: Cli, ledger: Ledger, name: str, reasons: list[str]) -> list[int]:
    """An index with a dead letter of two items for each reason."""
    assert idle("create", name, "--dim", 2).code == 0
    numbers = []
    for reason in reasons:
        assert idle("ingest", name, "-", stdin=ITEMS).code == 0
        (batch,) = ledger.lease_overdue(2**52, 2**52)
        delivery = ledger.begin(batch, lease_until=0)
        assert delivery is not None
        ledger.finish(batch, [DeadLetter(delivery.first, 2, batch, reason, delivery.payload)])
        numbers.append(delivery.first)
    return numbers


def test_letters_are_listed_and_counted_by_reason(idle: Cli, ledger: Ledger, name: str) -> None:
    first, _, _ = bury(idle, ledger, name, ["odd\x1b", "full", "odd\x1b"])
    assert [letter["reason"] for letter in idle("dead", "list", name, "--json").lines] == ["odd\x1b", "full", "odd\x1b"]
    assert idle("dead", "list", name, "--limit", 1, "--json").lines[0]["first"] == first
    assert "there may be more" in idle("dead", "list", name, "--limit", 1).err
    text = idle("dead", "list", name).out
    assert "\x1b" not in text
    assert text.splitlines()[0].split() == ["first", "items", "ids", "reason", "batch"]
    assert idle("dead", "list", name, "--reasons", "--json").lines == [
        {"reason": "odd\x1b", "letters": 2, "items": 4, "first": 1},
        {"reason": "full", "letters": 1, "items": 2, "first": 3},
    ]
    assert idle("dead", "list", name, "--reasons").out.splitlines()[2].split() == ["1", "2", "3", "full"]


def test_without_letters_that_is_said(idle: Cli, ledger: Ledger, name: str) -> None:
    bury(idle, ledger, name, [])
    for args in (["list"], ["list", "--reasons"]):
        assert idle("dead", args[0], name, *args[1:]).out == "no dead letters\n"
        assert idle("dead", args[0], name, *args[1:], "--json").out == ""
    assert idle("dead", "retry", name, "--all").out == "retried 0 letters with 0 items\n"
    assert idle("dead", "drop", name, "--all").code == 0


def test_a_letter_is_shown_with_what_it_holds(idle: Cli, ledger: Ledger, name: str) -> None:
    (number,) = bury(idle, ledger, name, ["odd"])
    shown = idle("dead", "show", name, number, "--json").json
    assert (shown["first"], shown["items"], shown["reason"]) == (number, 2, "odd")
    assert (shown["operation"], shown["retriable"]) == ("upsert", True)
    assert shown["contents"][0] == {"id": "a", "label": "cat", "metadata": None, "vector": [1.0, 2.0]}
    text = idle("dead", "show", name, number)
    assert (text.code, "\x1b" in text.out) == (0, False)
    assert "retriable  in its place" in text.out
    lost = idle("dead", "show", name, 99)
    assert (lost.code, lost.out) == (1, "")
    assert "has no dead letter 99" in lost.err


def test_what_is_no_vector_and_what_is_damaged_is_shown_as_far_as_it_goes(idle: Cli, ledger: Ledger, name: str) -> None:
    bury(idle, ledger, name, ["odd"])
    (letter,) = ledger.dead_letters()
    nan = letter.payload.replace(b"\x00\x00\x80?", b"\x00\x00\xc0\x7f")
    _put(ledger, letter, DeadLetter(5, 2, "nan", "coordinate 0 is nan", nan))
    _put(ledger, letter, DeadLetter(7, 2, "bad", "damaged", b"nothing"))
    assert idle("dead", "show", name, 5, "--json").json["contents"][0]["vector"] == ["nan", 2.0]
    damaged = idle("dead", "show", name, 7, "--json").json
    assert (damaged["contents"], damaged["retriable"]) == (None, False)
    assert idle("dead", "show", name, 7).out.endswith("its payload is damaged\n")
    outcome = idle("dead", "retry", name, "--all", "--json")
    assert outcome.code == 3
    assert outcome.json == {"index": name, "retried": 2, "items": 4, "missing": [], "lapsed": [], "damaged": [7]}
    assert "its payload is damaged; stream-hash dead drop" in outcome.err
    assert idle("dead", "retry", name, 7).code == 1


def _put(ledger: Ledger, like: DeadLetter, letter: DeadLetter) -> None:
    """One more letter, through a batch of its own."""
    from stream_hash.storage.codec import Batch

    ledger.accept(letter.batch, Batch("delete", ["x"] * like.items), lease_until=0)
    assert ledger.finish(letter.batch, [letter])


def test_retried_letters_are_stored_and_what_is_newer_stays(cli: Cli, working: Path, name: str) -> None:
    """A batch that died before the index was mended; meanwhile one of its items was sent again."""
    cli("create", name, "--dim", 2)
    with redis.Redis.from_url(EmbeddedServer(working).url) as client:
        ledger = Ledger(client, name)
        ledger.accept("early", _batch(), lease_until=2**52)
        delivery = ledger.begin("early", lease_until=2**52)
        assert delivery is not None
        ledger.finish("early", [DeadLetter(delivery.first, 2, "early", "odd", delivery.payload)])
    assert cli("ingest", name, "-", "--wait", stdin=b'{"id": "a", "vector": [7, 7]}').code == 0
    outcome = cli("dead", "retry", name, 1, "--wait", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    left = {"missing": [], "lapsed": [], "damaged": []}
    assert outcome.json == {"index": name, "retried": 1, "items": 2, "dead_again": 0, **left}
    assert [item["vector"] for item in cli("get", name, "a", "b").lines] == [[7, 7], [3, 4]]
    status = cli("status", name, "--json").json
    assert (status["accepted"], status["applied"], status["dead"], status["dropped"]) == (3, 3, 0, 0)
    assert cli("verify", name).code == 0
    again = cli("dead", "retry", name, 1)
    assert (again.code, again.err) == (1, "letter 1: there is no such dead letter (any more)\n")


def _batch():  # type: ignore[no-untyped-def] # what it is is said in the next line
    import numpy as np

    from stream_hash.storage.codec import Batch

    return Batch("upsert", ["a", "b"], np.array([[1, 2], [3, 4]], np.float32))


def test_a_letter_that_has_lapsed_is_sent_again_only_as_new(idle: Cli, ledger: Ledger, name: str) -> None:
    bury(idle, ledger, name, ["odd", "full"])
    assert ledger.lapse(3) == 1
    outcome = idle("dead", "retry", name, 1, 3)
    assert (outcome.code, outcome.out) == (3, "retried 1 letter with 2 items\n")
    assert outcome.err == "letter 1: it has lapsed; to send it again as the newest write: --as-new\n"
    assert "as the newest write (--as-new)" in idle("dead", "show", name, 1).out
    assert idle("dead", "retry", name, "--reason", "od", "--as-new").code == 0
    status = idle("status", name, "--json").json
    assert (status["accepted"], status["pending"], status["dropped"], status["dead"]) == (6, 4, 2, 0)


def test_dropping_letters_is_asked_about_and_counted(idle: Cli, ledger: Ledger, name: str) -> None:
    bury(idle, ledger, name, ["odd", "full"])
    nobody = idle("dead", "drop", name, 1)
    assert (nobody.code, nobody.out) == (2, "")
    assert "give --yes" in nobody.err
    refused = idle("dead", "drop", name, 1, stdin=b"n\n")
    assert (refused.code, refused.out) == (1, "")
    assert ledger.balance().dead == 4
    assert idle("dead", "drop", name, 1, stdin=b"y\n").out == "dropped 1 letter with 2 items\n"
    assert idle("dead", "drop", name, 1, 3, "--yes").code == 3
    status = idle("status", name, "--json").json
    assert (status["accepted"], status["dropped"], status["dead"]) == (4, 4, 0)


@pytest.mark.parametrize("args", [[], ["1", "--all"], ["--reason", "x", "--all"]], ids=str)
def test_letters_are_named_in_one_way(idle: Cli, ledger: Ledger, name: str, args: list[str]) -> None:
    bury(idle, ledger, name, [])
    for command in ("retry", "drop"):
        outcome = idle("dead", command, name, *args)
        assert (outcome.code, outcome.out) == (2, "")
        assert "Name the letters by their numbers, by --reason TEXT or by --all." in outcome.err


def test_an_index_is_dropped_when_the_answer_is_yes(idle: Cli, ledger: Ledger, name: str) -> None:
    bury(idle, ledger, name, ["odd"])
    assert idle("drop", name).code == 2
    refused = idle("drop", name, stdin=b"n\n")
    assert (refused.code, refused.out) == (1, "")
    assert f"Delete index '{name}' with 0 items for good?" in refused.err
    assert idle("status", name).code == 0
    outcome = idle("drop", name, "--yes", "--json")
    assert outcome.code == 0
    assert outcome.json["index"] == name
    assert outcome.json["keys"] == 6
    for gone in (["drop", name, "--yes"], ["status", name], ["dead", "list", name]):
        assert idle(*gone).code == 5
    assert name not in [index["index"] for index in idle("status", "--json").json["indexes"]]
    assert idle("create", name, "--dim", 2).code == 0


def test_a_drop_that_was_stopped_is_gone_on_with(idle: Cli, serving: Path, name: str) -> None:
    idle("create", name, "--dim", 2)
    with redis.Redis.from_url(EmbeddedServer(serving).url) as client:
        client.rename(f"sh:{{{name}}}:settings", f"sh:{{{name}}}:dropping")
        outcome = idle("status", name)
        assert outcome.code == 5
        assert f"stream-hash drop {name} --yes" in outcome.err
        assert idle("status").code == 0
        assert idle("create", name, "--dim", 2).code == 1
        asked = idle("drop", name, stdin=b"y\n")
        assert (asked.code, "is being dropped already" in asked.err) == (0, True)
        assert client.keys(f"sh:{{{name}*") == [f"sh:{{{name}:0}}:dropped:{_nonce(client, name)}".encode()]


def _nonce(client: redis.Redis, name: str) -> str:
    (key,) = client.keys(f"sh:{{{name}:0}}:dropped:*")
    return str(key.decode().rpartition(":")[2])


def test_producers_and_workers_of_a_dropped_index_say_that_it_is_gone(cli: Cli, working: Path, name: str) -> None:
    from stream_hash import Index, Producer
    from stream_hash.errors import IndexMissingError

    cli("create", name, "--dim", 2)
    url = EmbeddedServer(working).url
    index = Index(name, url)
    with redis.Redis.from_url(url) as client:
        producer = Producer(name, url)
        producer.upsert("a", [1, 2])
        producer.wait()
        assert cli("drop", name, "--yes").code == 0
        producer.upsert("b", [1, 2])
        with pytest.raises(IndexMissingError):
            producer.flush()
        for late in (lambda: index.query([1, 2]), lambda: index.get(["a"]) and None, lambda: index.delete(["a"])):
            try:
                late()
            except IndexMissingError:
                continue
        assert [key for key in client.keys(f"sh:{{{name}*") if b":dropped:" not in key] == []
    assert json.loads(cli("status", "--json").out)["workers"]

"""Every rule of the protocol, on every server; and each rule missed when it is taken out of its script."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import protocol
import pytest
from protocol import Bench
from redis.exceptions import ResponseError

from stream_hash.storage.connection import Client
from stream_hash.storage.scripts import sources

SCENARIOS = protocol.STORE_SCENARIOS + protocol.LEDGER_SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_rule(scenario: Callable[[Bench], None], client: Client) -> None:
    scenario(Bench(client))


ORDER = "if sequence <= tonumber(record[SEQUENCE]) or sequence < floor then -- rule: order"
LABEL_ORDER = "if sequence <= tonumber(record[LABEL_SEQUENCE]) or sequence <= tonumber(record[SEQUENCE])\n"

MUTANTS = {
    # name: (script, text, what stands in its place, which of the text's occurrences)
    "no fence": ("write", "if live ~= request.live or building ~= request.building then", "if false then", 0),
    "fence without live": ("write", "live ~= request.live or ", "", 0),
    "fence without building": ("write", " or building ~= request.building", "", 0),
    "upserts unordered": ("write", ORDER, "if sequence < floor then", 0),
    "upserts replayed": ("write", ORDER, ORDER.replace("<= tonumber", "< tonumber"), 0),
    "upserts below the floor": ("write", ORDER, ORDER.replace(" or sequence < floor", ""), 0),
    "deletes unordered": ("write", ORDER, "if sequence < floor then", 1),
    "deletes below the floor": ("write", ORDER, ORDER.replace(" or sequence < floor", ""), 1),
    "labels unordered": ("write", LABEL_ORDER, LABEL_ORDER.replace("sequence <=", "0 >"), 0),
    "labels below the floor": ("write", "      or sequence < floor then", "      then", 0),
    "no tombstone": (
        "write",
        "save_record(id, record) -- rule: tombstone",
        "redis.call('HDEL', prefix .. 'records', id)",
        0,
    ),
    "old members left by upserts": ("write", "remove_members(record) -- rule: stored codes", "", 0),
    "old members left by deletes": ("write", "remove_members(record) -- rule: stored codes", "", 1),
    "only the live generation written": ("write", "writable[2] = building", "", 0),
    "numbers not given back": ("write", "redis.call('RPUSH', prefix .. 'free', record[NUMBER])", "", 0),
    "no capacity": ("write", "if room < #request.writes then", "if false then", 0),
    "labels do not overtake": ("write", "if tonumber(record[LABEL_SEQUENCE]) < sequence then", "if true then", 0),
    "label list not kept": ("write", "redis.call('ZREM', prefix .. 'labelled', record[NUMBER])", "", 0),
    "directory not counted down": ("write", "redis.call('HINCRBY', directory, stored[position], -1) <= 0", "false", 0),
    "directory not counted up": ("write", "redis.call('HINCRBY', prefix .. 'directory:' .. place, code, 1)", "", 0),
    "records read once for two writes": ("write", "records[id], changed[id] = record,", "changed[id] =", 0),
    "free numbers not counted": ("write", "free = free - 1", "", 0),
    "numbers given out twice": ("write", "next_number = next_number + 1", "", 0),
    "items not counted up": ("write", "items = items + 1", "", 0),
    "items not counted down": ("write", "items = items - 1", "", 0),
    "tombstones kept": ("write", "redis.call('ZREM', prefix .. 'tombstones', id)", "", 0),
    "a label listed that was taken away": ("write", "labelled[record[NUMBER]] = nil", "", 0),
    "members rounded": ("write", "if low >= 1000000000 then", "if false then", 0),
    "floor not raised": ("purge", "local rises = horizon > floor", "local rises = false", 0),
    "floor sinks": ("purge", "local rises = horizon > floor", "local rises = true", 0),
    "tombstones forgotten early": ("purge", "'(' .. digits(floor)", "'+inf'", 0),
    "accepted twice": ("accept", "if first then -- rule: once", "if false then", 0),
    "receipts ignored": ("accept", "or redis.call('GET', prefix .. 'receipt:' .. batch)", "", 0),
    "no bound": ("accept", "if bound > 0 and pending >= bound then", "if false then", 0),
    "finished twice": ("finish", "if not first then -- rule: once", "if false then", 0),
    "dead letters counted as applied": ("finish", "items - dead", "items", 0),
    "begun after the end": ("begin", "if not first then", "if false then", 0),
    "leased to all": ("lease", "redis.call('ZADD', leases, ARGV[2], batch)", "", 0),
    "the server held against it": ("release", "if ARGV[4] == '1' then", "if false then", 0),
    "released after the end": ("release", "if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then", "if false then", 0),
    "models overwritten": ("publish", "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then", "if true then", 0),
    "live twice": ("activate", "== '0' then -- rule: once", "== '0' or true then", 0),
    "tombstones by the delete alone": ("write", "digits(newest), id)", "digits(sequence), id)", 0),
    "labels older than a delete": ("write", "or sequence <= tonumber(record[SEQUENCE])\n", "\n", 0),
    "labels outlive a delete": ("write", "record[LABEL], record[LABEL_SEQUENCE] = '', '0'", "", 0),
    "receipts for ever": ("finish", ", 'EX', ARGV[2])", ")", 0),
    "failures kept": ("finish", "redis.call('HDEL', prefix .. 'failures', batch)", "", 0),
    "horizon past pending": ("horizon", "if oldest[2] then", "if false then", 0),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_script_without_the_rule_is_caught(name: str) -> None:
    script, text, replacement, occurrence = MUTANTS[name]
    original = sources()[script]
    parts = original.split(text)
    assert len(parts) > occurrence + 1, f"{script}.lua has no such text (any more): {text}"
    mutated = text.join(parts[: occurrence + 1]) + replacement + text.join(parts[occurrence + 1 :])
    scripts = dict(sources()) | {script: mutated}
    assert any(_fails(scenario, scripts) for scenario in SCENARIOS)


def _fails(scenario: Callable[[Bench], None], scripts: dict[str, str]) -> bool:
    with fakeredis.FakeRedis() as client:
        try:
            scenario(Bench(client, scripts))
        except (AssertionError, ResponseError, TypeError, AttributeError, pytest.fail.Exception):
            return True
        return False


def test_without_hash_tags_a_write_is_refused_by_a_cluster(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 1: it is the tag that makes an item's write one atomic script on one node."""
    from redis.cluster import RedisCluster

    from stream_hash.storage.keys import PartitionKeys

    with RedisCluster.from_url(cluster_url) as client:
        client.flushall()
        Bench(client).upsert("a", 1, 5)
        monkeypatch.setattr(PartitionKeys, "prefix", property(lambda self: f"sh:{self.index}:{self.number}:"))
        with pytest.raises(ResponseError):
            Bench(client).upsert("b", 2, 5)

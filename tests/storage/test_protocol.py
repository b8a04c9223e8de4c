"""Every rule of the protocol, on every server; and each rule missed when it is taken out of its script."""

from __future__ import annotations

from collections.abc import Callable

import dead_protocol
import drop_protocol
import generation_protocol
import import_protocol
import plan_protocol
import protocol
import pytest
import quality_protocol
import redis
import tally_protocol
import trainer_protocol
from protocol import Bench
from redis.exceptions import ResponseError

from stream_hash.storage.connection import Client
from stream_hash.storage.scripts import sources

SCENARIOS = (
    *protocol.STORE_SCENARIOS,
    *protocol.LEDGER_SCENARIOS,
    *generation_protocol.SCENARIOS,
    *trainer_protocol.SCENARIOS,
    *quality_protocol.SCENARIOS,
    *plan_protocol.SCENARIOS,
    *tally_protocol.SCENARIOS,
    *import_protocol.SCENARIOS,
    *dead_protocol.SCENARIOS,
    *drop_protocol.SCENARIOS,
)


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
    "old members left": ("write", "remove_members(generation, number, before) -- rule: stored codes", "", 0),
    "old members left by upserts": ("write", "local store = move", "local store = occupy", 0),
    "old members left by deletes": ("write", "move(generation, tonumber(record[NUMBER]), false)", "", 0),
    "only the live generation written by deletes": (
        "write",
        "for _, generation in ipairs(writable) do",
        "for _, generation in ipairs({live}) do",
        0,
    ),
    "places not stored": ("write", "store_places()\nif next(values)", "if next(values)", 0),
    "places kept by deletes": (
        "write",
        "set_place(generation, number, place or string",
        "local _ = (place or string",
        0,
    ),
    "places of any length": ("write", "if #ARGV[2] ~= (#ARGV - 2) * #writable * width or", "if false or", 0),
    "blocks grow piecewise": ("write", "redis.call('SETRANGE', key, BLOCK * width - 1, '\\0')", "", 0),
    "neighbours across the end of a block": ("write", "and numbers[last + 1] % BLOCK ~= 0 do", "do", 0),
    "members not counted up": ("write", "part.added = part.added + 1", "", 0),
    "members not counted down": ("write", "part.added = part.added - 1", "", 0),
    "counts of nothing kept": ("write", "redis.call('HDEL', KEYS[1], part.members)", "", 0),
    "only the live generation written": ("write", "writable[2] = building", "", 0),
    "numbers not given back": ("write", "redis.call('RPUSH', prefix .. 'free', record[NUMBER])", "", 0),
    "no capacity": ("write", "if room < #request.writes then", "if false then", 0),
    "labels do not overtake": ("write", "if tonumber(record[LABEL_SEQUENCE]) < sequence then", "if true then", 0),
    "label list not kept": ("write", "redis.call('ZREM', prefix .. 'labelled', record[NUMBER])", "", 0),
    "directory not counted down": ("write", "redis.call('HINCRBY', part.directory, code, -1) <= 0", "false", 0),
    "directory not counted up": ("write", "redis.call('HINCRBY', part.directory, code, 1)", "1", 0),
    "opened buckets not listed": ("write", "part.opened[#part.opened + 1] = code", "", 0),
    "all buckets listed": ("write", "part.directory, code, 1) == 1 then", "part.directory, code, 1) > 0 then", 0),
    "opened buckets for ever": ("write", "if length >= math.max(OPENED,", "if length >= math.max(2^53,", 0),
    "lists as short for all": ("write", "redis.call('HLEN', part.directory) / 8", "0", 0),
    "begun anew each time": ("write", "if length >= math.max(OPENED,", "if length >= math.max(0,", 0),
    "begun anew and not counted": ("write", "redis.call('HINCRBY', KEYS[1], part.cleared, 1)", "", 0),
    "counted and not begun anew": ("write", "redis.call('UNLINK', part.list)", "", 0),
    "records read once for two writes": ("write", "records[id], changed[id] = record,", "changed[id] =", 0),
    "free numbers not counted": ("write", "free = free - 1", "", 0),
    "numbers given out twice": ("write", "next_number = next_number + 1", "", 0),
    "items not counted up": ("write", "items = items + 1", "", 0),
    "items not counted down": ("write", "items = items - 1", "", 0),
    "tombstones kept": ("write", "redis.call('ZREM', prefix .. 'tombstones', id)", "", 0),
    "a label listed that was taken away": ("write", "labelled[record[NUMBER]] = nil", "", 0),
    "members without carry": ("write", "math.floor(low / 1000000000)", "0", 0),
    "members rounded": (
        "write",
        "  if high == 0 then",
        "  if true then return digits(high * 2^40 + low) end if true then",
        0,
    ),
    "floor not raised": ("purge", "local rises = horizon > floor", "local rises = false", 0),
    "floor sinks": ("purge", "local rises = horizon > floor", "local rises = true", 0),
    "tombstones forgotten early": ("purge", "'(' .. digits(floor)", "'+inf'", 0),
    "accepted twice": ("accept", "if first then -- rule: once", "if false then", 0),
    "receipts ignored": ("accept", "or redis.call('GET', prefix .. 'receipt:' .. batch)", "", 0),
    "no bound": ("accept", "if bound > 0 and pending >= bound then", "if false then", 0),
    "finished twice": ("finish", "if not first then -- rule: once", "if false then", 0),
    "dead letters counted as applied": ("finish", "items - dead", "items", 0),
    "begun after the end": ("begin", "if not first then", "if false then", 0),
    "begun twice": ("begin", "if not again then -- rule: once", "if true then", 0),
    "begun once for all": ("begin", "'begun', ARGV[1]) == ARGV[3]", "'begun', ARGV[1])", 0),
    "attempts named for ever": ("finish", "redis.call('HDEL', prefix .. 'begun', batch)", "", 0),
    "leased to all": ("lease", "redis.call('ZADD', leases, ARGV[2], batch)", "", 0),
    "the server held against it": ("release", "if ARGV[4] == '1' then", "if false then", 0),
    "released twice": ("release", "== tonumber(ARGV[2])\n", "== 2^53\n", 0),
    "released for any reason": ("release", "== ARGV[3] then -- rule: once", "~= '' then", 0),
    "released after the end": ("release", "if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then", "if false then", 0),
    "models overwritten": ("publish", "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then", "if true then", 0),
    "a forgotten number again": ("publish", "> tonumber(ARGV[1]) then -- rule: never again", "> 2^53 then", 0),
    "plans of another index kept": ("plan", "~= ARGV[1] then -- rule: of this index", "== nil then", 0),
    "plans for ever": ("plan", "redis.call('DEL', key)", "local _ = key", 0),
    "batches not tallied": ("accept", "redis.call('HINCRBY', prefix .. 'tallies', 'batches', 1)", "", 0),
    "arrival not told": ("accept", "redis.call('HSET', prefix .. 'arrived', batch, ARGV[7])", "", 0),
    "arrivals for ever": ("finish", "redis.call('HDEL', prefix .. 'arrived', batch)", "", 0),
    "deliveries not tallied": ("begin", "redis.call('HINCRBY', prefix .. 'tallies', 'deliveries', 1)", "", 0),
    "deaths no retries": ("begin", "attempts > 1 or ", "", 0),
    "the server's faults no retries": (
        "begin",
        " or redis.call('HEXISTS', prefix .. 'failures', ARGV[1]) == 1 then",
        " then",
        0,
    ),
    "all deliveries retries": ("begin", "if attempts > 1", "if attempts > 0", 0),
    "failures not tallied": ("release", "redis.call('HINCRBY', prefix .. 'tallies', 'failed:' .. ARGV[5], 1)", "", 0),
    "outcomes not tallied": ("finish", "pairs(cjson.decode(ARGV[3]))", "pairs({})", 0),
    "tallies of another index": ("tally", "~= ARGV[1] then -- rule: of this index", "== nil then", 0),
    "tallies in doubles": ("tally", "string.format('%.0f', count)", "tostring(count)", 0),
    "live twice": ("activate", "== '0' then -- rule", "== '0' or true then -- rule", 0),
    "tombstones by the delete alone": ("write", "digits(newest), id)", "digits(sequence), id)", 0),
    "labels older than a delete": ("write", "or sequence <= tonumber(record[SEQUENCE])\n", "\n", 0),
    "labels outlive a delete": ("write", "record[LABEL], record[LABEL_SEQUENCE] = '', '0'", "", 0),
    "receipts for ever": ("finish", ", 'EX', ARGV[2])", ")", 0),
    "failures kept": ("finish", "redis.call('HDEL', prefix .. 'failures', batch)", "", 0),
    "horizon past pending": ("horizon", "if oldest[2] then", "if false then", 0),
    "two built at a time": ("generation_begin", "if building ~= '' then -- rule: one at a time", "if false then", 0),
    "an abandoned number again": ("generation_begin", " or is_retiring(generation) then", " then", 0),
    "an old number again": ("generation_begin", "tonumber(generation) < tonumber(live) or", "", 0),
    "built upon nothing": ("generation_begin", "if live == '0' then", "if false then", 0),
    "live begun again": ("generation_begin", "if live == generation then", "if false then", 0),
    "building not set": ("generation_begin", "redis.call('HSET', KEYS[1], 'building', generation)", "", 0),
    "begun with an older token": ("generation_begin", "if fenced(ARGV[3]) then", "if false then", 0),
    "switched with an older token": ("generation_switch", "if fenced(ARGV[3]) then", "if false then", 0),
    "abandoned with an older token": ("generation_abandon", "if fenced(ARGV[3]) then", "if false then", 0),
    "tokens not remembered": ("generation_begin", "redis.call('HSET', KEYS[1], 'token', token)", "", 0),
    "tokens not remembered by a switch": (
        "generation_switch",
        "redis.call('HSET', KEYS[1], 'token', token)",
        "",
        0,
    ),
    "put anywhere": ("generation_put", "if building ~= generation then -- rule: being built", "if false then", 0),
    "put though changed": (
        "generation_put",
        "if sequence == string.sub(ARGV[5], start + 3, start + 10) -- rule: sequence",
        "if true",
        0,
    ),
    "put though there": ("generation_put", "and not place_of(generation, number) then -- rule: once", "then", 0),
    "built at the first call": ("generation_put", "if ARGV[4] == '1' then", "if true then", 0),
    "never built": ("generation_put", "redis.call('SETBIT', built_key(), ARGV[3], 1)", "", 0),
    "places not put": ("generation_put", "store_places()\nif ARGV[4]", "if ARGV[4]", 0),
    "live though incomplete": ("generation_switch", "if not complete then -- rule: complete", "if false then", 0),
    "only the last table complete": ("generation_switch", "complete = complete and members", "complete = members", 0),
    "only the first table complete": (
        "generation_switch",
        "for table_number = 0, tables - 1 do",
        "for table_number = 0, 0 do",
        1,
    ),
    "switched to what is not built": (
        "generation_switch",
        "if building ~= generation then -- rule: being built",
        "if false then",
        0,
    ),
    "switched twice": ("generation_switch", "if live == generation then", "if false then", 0),
    "bits kept": ("generation_switch", "redis.call('UNLINK', built_key())", "", 0),
    "the old one not retired": ("generation_switch", "begin_retiring(live)", "", 0),
    "the abandoned not retired": ("generation_abandon", "begin_retiring(generation)", "", 0),
    "abandoned twice": ("generation_abandon", "if building ~= generation then", "if false then", 0),
    "live retired": ("generation_retire", "if live == generation or building", "if building", 0),
    "building retired": ("generation_retire", "live == generation or building == generation", "live == generation", 0),
    "buckets left": ("generation_retire", "redis.call('UNLINK', unpack(buckets))", "", 0),
    "places left": ("generation_retire", "redis.call('UNLINK', unpack(keys))", "", 0),
    "some places left": ("generation_retire", "if block < blocks then", "if false then", 0),
    "counts left": (
        "generation_retire",
        "redis.call('HDEL', KEYS[1], 'members:' .. generation .. ':' .. table_number)",
        "",
        0,
    ),
    "lists left": ("generation_retire", "redis.call('UNLINK', prefix .. 'opened:'", "local _ = ('opened:'", 0),
    "counts of lists left": (
        "generation_retire",
        "redis.call('HDEL', KEYS[1], 'cleared:' .. generation .. ':' .. table_number)",
        "",
        0,
    ),
    "retiring for ever": ("generation_retire", "if other ~= generation then", "if true then", 0),
    "others forgotten": ("generation_retire", "if other ~= generation then", "if false then", 0),
    "into another index": ("generation_put", "if state[9] and state[9] ~= ARGV[2] then", "if false then", 0),
    "a token before there is a nonce": (
        "generation_begin",
        "if not state[9] then -- rule: of no index yet",
        "if false then",
        0,
    ),
    "fenced off with an older token": ("generation_fence", "if fenced(ARGV[3]) then", "if false then", 0),
    "nobody fenced off": ("generation_fence", "redis.call('HSET', KEYS[1], 'token', token)", "", 0),
    "fenced off before the first": ("generation_fence", "if live == '0' then", "if false then", 0),
    "what retires is not in use": ("generation_fence", "building, retiring}", "building, ''}", 0),
    "published into another index": (
        "publish",
        "if nonce ~= ARGV[4] then -- rule: the same index",
        "if false then",
        0,
    ),
    **{
        f"{script} of another index": (
            script,
            "if not settings or cjson.decode(settings).nonce ~= ARGV[1] then -- rule: the same index",
            "if false then",
            0,
        )
        for script in (
            "trainer_lead",
            "trainer_renew",
            "trainer_release",
            "trainer_publish",
            "trainer_checkpoint",
            "trainer_forget",
            "quality_fold",
        )
    },
    "the dead waited for": ("trainer_lead", "and holder ~= ARGV[5] then -- rule: gone", "then", 0),
    "taken from anybody": ("trainer_lead", "and holder ~= ARGV[5] then -- rule: gone", "and not ARGV[5] then", 0),
    "rolled back and not recorded": ("trainer_publish", "if ARGV[6] then", "if false then", 0),
    "runs of rollbacks for ever": (
        "trainer_publish",
        "redis.call('LTRIM', prefix .. 'runs', 0, tonumber(ARGV[7]) - 1)",
        "",
        0,
    ),
    "two trainers": ("trainer_lead", "tonumber(until_then) > tonumber(ARGV[3]) --", "false --", 0),
    "a lease for ever": ("trainer_lead", "and tonumber(until_then) > tonumber(ARGV[3])", "", 0),
    "a holder locked out": ("trainer_lead", "holder ~= ARGV[2] and tonumber", "tonumber", 0),
    "one token for all": ("trainer_lead", "if holder ~= ARGV[2] then", "if false then", 0),
    "a token each time": ("trainer_lead", "if holder ~= ARGV[2] then", "if true then", 0),
    "renewed by an older token": ("trainer_renew", "if fenced(ARGV[2]) then", "if false then", 0),
    "not renewed": ("trainer_renew", "redis.call('HSET', KEYS[1], 'until', ARGV[3])", "", 0),
    "released by an older token": ("trainer_release", "if fenced(ARGV[2]) then", "if false then", 0),
    "not released": ("trainer_release", "redis.call('HDEL', KEYS[1], 'holder', 'until')", "", 0),
    "tokens compared as text": ("trainer_publish", "tonumber(token) < tonumber(newest)", "token < newest", 0),
    "published with an older token": ("trainer_publish", "if fenced(ARGV[2]) then", "if false then", 0),
    "published twice": ("trainer_publish", "if record and", "if false and", 0),
    "published once for all": ("trainer_publish", "cjson.decode(record).sha256 == ARGV[3] then", "true then", 0),
    "a number again": ("trainer_publish", "last + 1", "last", 0),
    "numbers compared as text": (
        "trainer_publish",
        "math.max(last, tonumber(generation))",
        "tonumber(tostring(last) > generation and last or generation)",
        0,
    ),
    "no target": ("trainer_publish", "redis.call('HSET', KEYS[1], 'target', generation)", "", 0),
    "the first by a trainer": ("trainer_publish", "if last == 0 then", "if false then", 0),
    "stored with an older token": ("trainer_checkpoint", "if fenced(ARGV[2]) then", "if false then", 0),
    "recorded twice": ("trainer_checkpoint", "if last and", "if false and", 0),
    "recorded without its learner": ("trainer_checkpoint", "redis.call('SET', prefix .. 'learner', ARGV[6])", "", 0),
    "runs for ever": ("trainer_checkpoint", "redis.call('LTRIM', prefix .. 'runs', 0, tonumber(ARGV[5]) - 1)", "", 0),
    "forgotten with an older token": ("trainer_forget", "if fenced(ARGV[2]) then", "if false then", 0),
    "forgotten though in use": ("trainer_forget", "kept[ARGV[position]] = true", "", 0),
    "the target forgotten": ("trainer_forget", "kept[redis.call('HGET', KEYS[1], 'target') or ''] = true", "", 0),
    "models left": ("trainer_forget", "redis.call('UNLINK', prefix .. 'model:' .. generation)", "", 0),
    "the newest by text": ("trainer_forget", "tonumber(one) > tonumber(other)", "one > other", 0),
    "the newest forgotten": ("trainer_forget", "math.max(1, tonumber(ARGV[3]))", "tonumber(ARGV[3])", 0),
    "figures of any attempt": ("quality_add", "~= '1' -- rule: first attempt", "== ''", 0),
    "figures after a failure": ("quality_add", "== 1 then -- rule: never failed", "== 2 then", 0),
    "figures twice": ("quality_add", "== 0 then -- rule: once", ">= 0 then", 0),
    "figures for ever": ("quality_add", "redis.call('ZREMRANGEBYRANK', figures, 0, -tonumber(ARGV[2]) - 1)", "", 0),
    "the oldest figures kept": ("quality_add", "0, -tonumber(ARGV[2]) - 1)", "tonumber(ARGV[2]), -1)", 0),
    "folded upon another": ("quality_fold", "~= ARGV[2] then -- rule: once", "== '' then", 0),
    "letters not held": ("finish", "redis.call('ZADD', prefix .. 'held', ARGV[position], ARGV[position])", "", 0),
    "letters do not hold the floor": ("floor", "ipairs({KEYS[1], prefix .. 'held'})", "ipairs({KEYS[1]})", 0),
    "batches do not hold the floor": ("floor", "ipairs({KEYS[1], prefix .. 'held'})", "ipairs({prefix .. 'held'})", 0),
    "retried twice": ("dead_retry", "if known then -- rule: once", "if false then", 0),
    "receipts of retries ignored": ("dead_retry", "or redis.call('GET', prefix .. 'receipt:' .. batch)", "", 0),
    "retried though lapsed": (
        "dead_retry",
        "if not first and ARGV[5] ~= '1' then -- rule: held",
        "first = first or letter if false then",
        0,
    ),
    "retried and still a letter": ("dead_retry", "redis.call('HDEL', prefix .. 'dead', letter)", "", 0),
    "retried and held for ever": ("dead_retry", "redis.call('ZREM', prefix .. 'held', letter)", "", 0),
    "retried and counted as dead": (
        "dead_retry",
        "redis.call('HINCRBY', prefix .. 'counters', 'dead', -header.items)",
        "",
        0,
    ),
    "retried under new numbers": ("dead_retry", "if ARGV[5] == '1' then\n", "if true then\n", 0),
    "anew under the old numbers": (
        "dead_retry",
        "first = redis.call('INCRBY'",
        "first = letter or redis.call('INCRBY'",
        0,
    ),
    "anew and not counted as dropped": (
        "dead_retry",
        "redis.call('HINCRBY', prefix .. 'counters', 'dropped', header.items) -- rule: anew",
        "",
        0,
    ),
    "anew and not counted as accepted": (
        "dead_retry",
        "redis.call('HINCRBY', prefix .. 'counters', 'accepted', header.items)",
        "",
        0,
    ),
    "figures of retries": ("dead_retry", "redis.call('HSET', prefix .. 'failures', batch, header.reason)", "", 0),
    "retried when dropped": ("dead_retry", "== 0 then -- rule: an index that is there", "== 2 then", 0),
    "dropped twice": ("dead_drop", "if not text then -- rule: once", "if text == 0 then", 0),
    "dropped and a letter still": ("dead_drop", "redis.call('HDEL', prefix .. 'dead', ARGV[1])", "", 0),
    "dropped and held": ("dead_drop", "redis.call('ZREM', prefix .. 'held', ARGV[1])", "", 0),
    "dropped and counted as dead": ("dead_drop", "redis.call('HINCRBY', prefix .. 'counters', 'dead', -items)", "", 0),
    "dropped and not counted": ("dead_drop", "redis.call('HINCRBY', prefix .. 'counters', 'dropped', items)", "", 0),
    "any index of the name is dropped": ("drop", "if not settings or cjson", "if not settings or false and cjson", 0),
    "not gone on with": ("drop", "if standing then", "if false then", 0),
    "settings left": ("drop", "redis.call('RENAME', KEYS[1], KEYS[2])", "redis.call('SET', KEYS[2], settings)", 0),
    "created among what goes": ("create", "== 1 then -- rule: not among what goes", "== 2 then", 0),
    "accepted for nobody": ("accept", "== 0 then -- rule: an index that is there", "== 2 then", 0),
    "begun for nobody": ("begin", "== 0 then -- rule: an index that is there", "== 2 then", 0),
    "written though dropped": ("write", "if dropped(request.nonce) then -- rule: dropped", "if false then", 0),
    "purged though dropped": ("purge", "if dropped(ARGV[3]) then -- rule: dropped", "if false then", 0),
    "activated for an index that was wiped": ("activate", "~= ARGV[2] then -- rule: the same index", "== '' then", 0),
    "activated though dropped": ("activate", "== 1 then -- rule: dropped", "== 2 then", 0),
    "begun though dropped": ("generation_begin", "if dropped(ARGV[2]) then -- rule: dropped", "if false then", 0),
    "retired though dropped": ("generation_retire", "if dropped(ARGV[2]) then -- rule: dropped", "if false then", 0),
    "folded and left": ("quality_fold", "redis.call('ZREMRANGEBYSCORE'", "redis.call('ZRANGEBYSCORE'", 0),
    "folded beyond": ("quality_fold", "'(' .. ARGV[3]", "ARGV[3]", 0),
    "nobody asked": ("quality_fold", "if ARGV[5] then", "if false then", 0),
    "imported over another": ("import_begin", "if standing then", "if false then", 0),
    "any import is this one": ("import_begin", ".imported == ARGV[1] and", ".imported and", 0),
    "two archives in one": ("import_begin", "import[1] ~= ARGV[1] or import[2] ~= ARGV[2]", "false", 0),
    "an import begun anew each time": ("import_begin", "if import[1] then", "if false then", 0),
    "gone on with what is given up": ("import_begin", "if import[3] == '' then", "if false then", 0),
    "numbers sink at the beginning": ("import_begin", "or '0') < tonumber(ARGV[4])", "or '0') >= 0", 0),
    "numbers not begun": ("import_begin", "redis.call('SET', prefix .. 'sequence', ARGV[4])", "", 0),
    "an import goes back": ("import_advance", "if tonumber(import[2]) < tonumber(ARGV[2]) then", "if true then", 0),
    "advanced by anybody": ("import_advance", "if import[1] ~= ARGV[1] then", "if false then", 0),
    "finished by anybody": ("import_finish", "'nonce') ~= ARGV[1] then", "'nonce') == 0 then", 0),
    "finished by anybody later": ("import_finish", ".nonce == ARGV[1] and 1 or 0", ".nonce and 1 or 0", 0),
    "finished twice over": ("import_finish", "if standing then", "if false then", 0),
    "numbers sink at the end": ("import_finish", "or '0') < tonumber(ARGV[3])", "or '0') >= 0", 0),
    "numbers not raised": ("import_finish", "redis.call('SET', prefix .. 'sequence', ARGV[3])", "", 0),
    "imported and not accepted": ("import_finish", "'accepted', ARGV[4])", "'accepted', 0)", 0),
    "no target imported": ("import_finish", "redis.call('HSET', prefix .. 'trainer', 'target', ARGV[5])", "", 0),
    "no plan imported": ("import_finish", "redis.call('SET', prefix .. 'plan', ARGV[6])", "", 0),
    "runs turned round": ("import_finish", "'RPUSH'", "'LPUSH'", 0),
    "imported for ever": ("import_finish", "redis.call('UNLINK', prefix .. 'import')", "", 0),
    "imported among what goes": ("import_begin", "== 1 then -- rule: not among what goes", "== 2 then", 0),
    "not doomed": ("import_doom", "redis.call('HSET', key, 'nonce', '')", "", 0),
    "created over an import": ("create", "'import') == 1 then", "'import') == 2 then", 0),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_script_without_the_rule_is_caught(name: str, real_client: redis.Redis) -> None:
    scripts = scripts_without(name)
    assert any(_fails(scenario, scripts, real_client) for scenario in _likely_first(*MUTANTS[name][:2]))


def scripts_without(name: str) -> dict[str, str]:
    """All scripts, with one rule removed."""
    script, text, replacement, occurrence = MUTANTS[name]
    parts = sources()[script].split(text)
    assert len(parts) > occurrence + 1, f"{script}.lua has no such text (any more): {text}"
    mutated = text.join(parts[: occurrence + 1]) + replacement + text.join(parts[occurrence + 1 :])
    return dict(sources()) | {script: mutated}


def test_each_mutant_is_a_script_still(real_client: redis.Redis) -> None:
    """One that does not compile would be caught by anything."""
    for name, (script, *_) in MUTANTS.items():
        assert real_client.script_load(scripts_without(name)[script]), name


ABOUT = {
    ("held",): dead_protocol.SCENARIOS,
    ("dropped", "an index that is there", "not among what goes"): drop_protocol.SCENARIOS,
}
"""What rules are about that stand in many scripts: their scenarios are the likeliest to miss one."""


def _likely_first(script: str, text: str) -> list[Callable[[Bench], None]]:
    """All scenarios, those about the script's own part of the protocol first, or about what the text is about."""
    parts = {"generation": generation_protocol.SCENARIOS, "trainer": trainer_protocol.SCENARIOS}
    parts |= {"import": import_protocol.SCENARIOS, "create": import_protocol.SCENARIOS}
    parts |= {"quality": quality_protocol.SCENARIOS, "plan": plan_protocol.SCENARIOS}
    parts |= dict.fromkeys(("tally", "accept", "begin", "release", "finish"), tally_protocol.SCENARIOS)
    parts |= {"dead": dead_protocol.SCENARIOS, "drop": drop_protocol.SCENARIOS}
    own = parts.get(script.partition("_")[0], ())
    for words, scenarios in ABOUT.items():
        own = scenarios if any(word in text for word in words) else own
    return [*own, *(scenario for scenario in SCENARIOS if scenario not in own)]


def _fails(scenario: Callable[[Bench], None], scripts: dict[str, str], client: redis.Redis) -> bool:
    client.flushall()
    try:
        scenario(Bench(client, scripts))
    except (AssertionError, ResponseError, TypeError, AttributeError, IndexError, pytest.fail.Exception):
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

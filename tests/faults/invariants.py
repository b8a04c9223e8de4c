"""The invariants of an index, checked on all of its keys at one moment, by loops and without the product's verify.

Only what is stored is believed: the hash of each vector is computed here, with the model that the server holds.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import oracle
import redis
import stand_ins

from stream_hash.numerics.model import Model
from stream_hash.service.learner_state import LearnerState
from stream_hash.settings import IndexSettings
from stream_hash.storage.codec import Record, decode_model, decode_record

READS = {
    **dict.fromkeys(("settings", "sequence", "learner", "model", "batch", "receipt"), "GET"),
    **dict.fromkeys(("value", "places", "built"), "GET"),
    **dict.fromkeys(("generations", "sizes", "arrived", "attempts", "begun", "failures", "dead"), "HGETALL"),
    **dict.fromkeys(("counters", "trainer"), "HGETALL"),
    **dict.fromkeys(("state", "records", "directory"), "HGETALL"),
    "bucket": "SMEMBERS",
}
"""How the keys that are looked at are read, by the first word of their names."""

Dump = dict[str, dict[str, Any]]
"""First word of a key's name → the rest of it → content."""


def dump(client: redis.Redis, index: str) -> tuple[Dump, dict[str, Dump]]:
    """The keys of an index as a whole, and of each partition, by the key of its state."""
    names = [key.decode() for key in client.keys(f"sh:{{{index}*")]
    pipeline = client.pipeline(transaction=True)
    for name in names:
        if ":receipt:" in name:
            pipeline.ttl(name)
    receipts = len(pipeline)
    found: dict[int, Dump] = {}
    slots = []
    for name in names:
        tag, _, rest = name.partition("}:")
        kind, _, which = rest.partition(":")
        partition = int(tag.rpartition(":")[2]) if tag.count(":") == 2 else -1
        if kind in READS:
            pipeline.execute_command(READS[kind], name)
            slots.append((partition, kind, which))
        else:
            found.setdefault(partition, {}).setdefault(kind, {})[which] = None
            if kind in ("tombstones", "labelled", "pending", "held", "leases", "figures"):
                pipeline.zrange(name, 0, -1, withscores=True)
                slots.append((partition, kind, which))
            elif kind in ("free", "runs", "opened"):
                pipeline.lrange(name, 0, -1)
                slots.append((partition, kind, which))
    replies = pipeline.execute()
    assert all(seconds > 0 for seconds in replies[:receipts]), "a receipt is kept for ever"
    for (partition, kind, which), reply in zip(slots, replies[receipts:], strict=True):
        found.setdefault(partition, {}).setdefault(kind, {})[which] = reply
    return found.get(-1, {}), {f"sh:{{{index}:{p}}}:state": keys for p, keys in found.items() if p >= 0}


@lru_cache(maxsize=512)
def model_of(raw: bytes, sha256: str) -> Model:
    return Model.from_arrays(decode_model(raw, sha256))


@lru_cache(maxsize=100_000)
def place_of(raw: bytes, sha256: str, vector: bytes) -> tuple[tuple[int, ...], int]:
    """(codes, signature) of a vector: codes by loops, the signature by the model."""
    model = model_of(raw, sha256)
    row = np.frombuffer(vector, dtype="<f4")[None, :]
    normalise = model.metric == "cosine"
    (codes,) = oracle.naive_codes(row, model.hyperplanes, model.mean, model.tables, model.bits, normalise=normalise)
    return tuple(codes), int(model.encode(row).signatures[0])


def check_ledger(whole: Dump) -> None:
    """accepted = applied + pending + dead + dropped; letters are counted; of a finished batch nothing is left."""
    counters = {k.decode(): int(v) for k, v in whole.get("counters", {}).get("", {}).items()}
    pending = sum(map(int, whole.get("sizes", {}).get("", {}).values()))
    done = counters.get("applied", 0) + counters.get("dead", 0) + counters.get("dropped", 0)
    assert counters.get("accepted", 0) == done + pending, f"the ledger does not balance: {counters}, {pending} pending"
    assert len(whole.get("pending", {}).get("", [])) == len(whole.get("batch", {})), "a payload without its batch"
    pending_names = {name for name, _ in whole.get("pending", {}).get("", [])}
    letters = whole.get("dead", {}).get("", {})
    buried = sum(json.loads(text.partition(b"\n")[0])["items"] for text in letters.values())
    assert counters.get("dead", 0) == buried, f"{buried} items are in dead letters: {counters}"
    held = {name for name, _ in whole.get("held", {}).get("", [])}
    assert held <= set(letters), f"{held - set(letters)} are held, and no dead letters"
    for kind in ("leases", "sizes", "attempts", "begun", "failures", "arrived"):
        known = whole.get(kind, {}).get("", {})
        names = {name for name, _ in known} if kind == "leases" else set(known)
        assert names <= pending_names, f"{kind} of {names - pending_names}, which are not pending"
    assert int(whole.get("sequence", {}).get("", 0)) == counters.get("accepted", 0), "numbers were given out twice"


def check_trainer(whole: Dump) -> None:
    """A run and what it learned are stored together, once; the target's model is there, and no old one for ever."""
    runs = [json.loads(text) for text in whole.get("runs", {}).get("", [])]
    assert len({run["id"] for run in runs}) == len(runs) <= stand_ins.RUNS_KEPT, f"runs are recorded twice: {runs}"
    learned = [run for run in runs if "candidate" in run["figures"]]
    stored = whole.get("learner", {}).get("")
    if learned and stored is None:
        raise AssertionError(f"{learned[0]} is recorded, and nothing was learned")
    if learned:
        state = LearnerState.from_bytes(stored)
        newest = learned[0]
        assert state.cursor == newest["seen"], f"learned up to {state.cursor}, recorded {newest}"
        assert state.judged == (newest["generation"] or newest["parent"]), f"judged {state.judged}, recorded {newest}"
        since = [run["figures"]["candidate"] for run in learned]
        if "fresh" in since:
            count = int(state.arrays["runs"])
            assert count == since.index("fresh") + 1, f"learned in {count} runs, recorded {since}"
    generations = {g.decode() for g in whole.get("generations", {}).get("", {})}
    assert generations == set(whole.get("model", {})), "models and their records differ"
    target = whole.get("trainer", {}).get("", {}).get(b"target", b"").decode()
    assert not target or target in generations, f"the target {target} has no model"


class Partition:
    """One partition's keys, being checked."""

    def __init__(self, key: str, keys: Dump, whole: Dump, settings: IndexSettings) -> None:
        self.key, self._keys, self._settings = key, keys, settings
        self._code_bytes = -(-settings.bits // 8)
        self._width = 5 + settings.tables * self._code_bytes
        self._models = {
            g.decode(): (whole["model"][g.decode()], json.loads(text)["sha256"])
            for g, text in whole.get("generations", {}).get("", {}).items()
            if g.decode() in whole.get("model", {})
        }
        state = {k.decode(): v.decode() for k, v in self._of("state").items()}
        self.live, self.building = state.get("live", "0"), state.get("building", "")
        self.retiring = [g for g in state.get("retiring", "").split(",") if g]
        self.floor = int(state.get("floor", 0))
        self._state = state
        self.records: dict[str, Record] = {i.decode(): decode_record(t) for i, t in self._of("records").items()}
        self.items = {r.number: i for i, r in self.records.items() if r.number is not None}
        self._last_sequence = int(whole.get("sequence", {}).get("", 0))

    def _of(self, kind: str) -> Any:
        return self._keys.get(kind, {}).get("", {})

    def built(self) -> set[int]:
        """Which chunks are said to be in the generation that is being built."""
        bitmap = self._keys.get("built", {}).get(self.building) or b""
        return {chunk for chunk in range(8 * len(bitmap)) if bitmap[chunk // 8] & 0x80 >> chunk % 8}

    def check(self) -> None:
        assert not self.building or self.live != "0", f"generation {self.building} replaces nothing"
        self._check_items()
        for generation in (g for g in (self.live, self.building) if g not in ("0", "")):
            self._check_generation(generation)
        for generation in self.retiring:
            assert generation not in (self.live, self.building), f"generation {generation} in use is being retired"
            self._check_directories(generation)
        kept = {self.live, self.building, *self.retiring}
        for kind in ("bucket", "directory", "opened", "places", "built"):
            for rest in self._keys.get(kind, {}):
                assert rest.split(":")[0] in kept, f"{kind}:{rest} is left of a generation that is in use no more"
        assert set(self._keys.get("built", {})) <= {self.building}, "what is built is noted of one that is no more"
        for name, count in self._state.items():
            assert not name.startswith(("members:", "cleared:")) or name.split(":")[1] in kept, f"{name} is left"
            assert not name.startswith("members:") or int(count) > 0, f"{name} counts {count}"

    def _check_items(self) -> None:
        """Records, values, numbers, tombstones and labels belong together."""
        numbers = list(self.items)
        assert len(numbers) == sum(r.number is not None for r in self.records.values()), "a number is used twice"
        assert int(self._state.get("items", 0)) == len(numbers), "items are miscounted"
        free = sorted(map(int, self._of("free") or []))
        assert sorted(numbers + free) == list(range(int(self._state.get("next", 0)))), f"{numbers} used, {free} free"
        values = self._keys.get("value", {})
        assert {int(n) for n in values} == set(numbers), "values and records differ"
        for number, item_id in self.items.items():
            value, record = values[str(number)], self.records[item_id]
            assert value[8 + 4 * self._settings.dimension :].decode() == item_id, f"the value of {item_id} is another's"
            assert int.from_bytes(value[:8], "little") == record.sequence, f"{item_id}: value and record differ"
            assert record.sequence <= self._last_sequence, f"the number of {item_id} was never given out"
        without = {i: max(r.sequence, r.label_sequence) for i, r in self.records.items() if r.number is None}
        tombstones = {i.decode(): int(s) for i, s in self._of("tombstones") or []}
        assert tombstones == without, f"tombstones are {tombstones}, ids without an item {without}"
        for item_id, record in self.records.items():
            kept = record.number is None and record.label and record.label_sequence < record.sequence
            assert not kept, f"the label of {item_id} outlives its item: {record}"
        listed = {int(n): int(s) for n, s in self._of("labelled") or []}
        labels = {r.number: r.label_sequence for r in self.records.values() if r.number is not None and r.label}
        assert listed == labels, f"listed as labelled are {listed}, labels are {labels}"

    def _check_generation(self, generation: str) -> None:
        """Each item is in the bucket of its vector's hash in each table, and nothing else is anywhere."""
        raw, sha256 = self._models[generation]
        buckets: dict[str, set[int]] = {}
        built = self.built()
        for number, item_id in self.items.items():
            place = self._place(generation, number)
            if place is None:
                missing = f"{item_id} is missing from a chunk said to be built, generation {generation}"
                assert generation == self.building, f"{item_id} has no place in generation {generation}"
                assert number // stand_ins.CHUNK not in built, missing
                continue
            vector = self._keys["value"][str(number)][8 : 8 + 4 * self._settings.dimension]
            expected = place_of(raw, sha256, vector)
            assert place == expected, f"{item_id} is under {place}, not {expected}, in generation {generation}"
            for table, code in enumerate(place[0]):
                buckets.setdefault(f"{generation}:{table}:{code}", set()).add(place[1] << 24 | number)
        stored = {
            name: set(map(int, members))
            for name, members in self._keys.get("bucket", {}).items()
            if name.split(":")[0] == generation
        }
        assert stored == buckets, f"buckets are {stored}, and should be {buckets}"
        for name, block in self._keys.get("places", {}).items():
            if name.split(":")[0] == generation:
                assert len(block) == stand_ins.BLOCK * self._width, f"places:{name} was not allocated as a whole"
                first = int(name.split(":")[1]) * stand_ins.BLOCK
                occupied = {first + n for n in range(stand_ins.BLOCK) if block[n * self._width] & 0x80}
                assert occupied <= set(self.items), f"places of no item: {occupied - set(self.items)}"
        self._check_directories(generation)

    def _check_directories(self, generation: str) -> None:
        """The directory counts what each bucket holds; the partition, what the directory does."""
        for table in range(self._settings.tables):
            at = f"{generation}:{table}"
            counted = {c.decode(): int(n) for c, n in self._keys.get("directory", {}).get(at, {}).items()}
            held = {
                name.rpartition(":")[2]: len(members)
                for name, members in self._keys.get("bucket", {}).items()
                if name.rpartition(":")[0] == at
            }
            assert counted == held, f"the directory of {at} counts {counted}, its buckets hold {held}"
            if generation not in self.retiring:
                members = int(self._state.get(f"members:{at}", 0))
                assert members == sum(held.values()), f"{members} members counted, {sum(held.values())} held, {at}"

    def _place(self, generation: str, number: int) -> tuple[tuple[int, ...], int] | None:
        block = self._keys.get("places", {}).get(f"{generation}:{number // stand_ins.BLOCK}") or b""
        place = block[number % stand_ins.BLOCK * self._width :][: self._width]
        if not place or not place[0] & 0x80:
            return None
        starts = range(5, self._width, self._code_bytes)
        codes = tuple(int.from_bytes(place[s : s + self._code_bytes], "big") for s in starts)
        return codes, int.from_bytes(place[:5], "big") - (1 << 39)


def check(client: redis.Redis, index: str, settings: IndexSettings) -> tuple[Dump, list[Partition]]:
    """Assert every invariant at this moment. Returns the keys of the index as a whole, and the partitions."""
    whole, partitions = dump(client, index)
    check_ledger(whole)
    check_trainer(whole)
    looked_at = [Partition(key, keys, whole, settings) for key, keys in sorted(partitions.items())]
    waiting = [first for kind in ("pending", "held") for _, first in whole.get(kind, {}).get("", [])]
    for partition in looked_at:
        assert partition.floor <= min(waiting, default=partition.floor), f"the floor of {partition.key} is too high"
    for partition in looked_at:
        partition.check()
    return whole, looked_at

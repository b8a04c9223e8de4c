"""An index against a dictionary: whatever is done to it, in any order, it answers as the dictionary does.

What waits to be applied is applied in any order, and again after it was; generations are begun, built, left and
switched a step at a time. Exact search is compared with a sort of all items after each step that changes something.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from hypothesis import HealthCheck
from hypothesis import seed as hypothesis_seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stream_hash import Index
from stream_hash.clock import now_milliseconds
from stream_hash.numerics.model import lsh_model
from stream_hash.service import ingest, reindex, rollback, sweep
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.service.ingest import apply_batch
from stream_hash.settings import IndexSettings, label_text
from stream_hash.storage.codec import Batch
from stream_hash.storage.store import State
from stream_hash.storage.trainer_state import Lead
from tests import oracle

DIMENSION = 4
WAYS: Final = (
    "batches applied, in any order",
    "batches whose worker died before it finished them",
    "finished batches delivered again",
    "finished batches written again by a worker that was paused",
    "generations given up half built",
    "switches",
    "switches refused: incomplete",
    "re-indexes to the end",
    "queries",
)
"""What a run has to have come upon, or it has shown less than it says."""

VECTORS = np.random.default_rng(0).normal(size=(32, DIMENSION)).astype(np.float32)
IDS = [f"i{n}" for n in range(4)]
LABELS = ["", '"x"', "1", '["x",1]']

ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=4)
numbers = st.integers(0, len(VECTORS) - 1)
places = st.sampled_from([0, -1, 1, -2])
"""In a list: integers would nearly always be small, and all be done in order."""


class IndexMachine(RuleBasedStateMachine):
    """client : of the server, which is emptied for each example. done : how often what was done."""

    client: Any
    done: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[tuple[str, int, Batch]] = []
        self.applied: list[tuple[int, Batch]] = []
        self.waiting: list[tuple[str, int, Batch]] = []
        self.generations = [1]
        self.token = 0

    @initialize(
        partitions=st.integers(1, 2), tables=st.integers(1, 2), metric=st.sampled_from(["l2", "cosine", "inner"])
    )
    def create(self, partitions: int, tables: int, metric: Any) -> None:
        self.done["examples"] += 1
        self.client.flushall()
        settings = IndexSettings(DIMENSION, bits=4, partitions=partitions, tables=tables, metric=metric)
        self.index = Index.create("x", settings, Connections(self.client, None), sample=VECTORS)
        self.handle = IndexHandle(self.client, "x")
        self.late = IndexHandle(self.client, "x")  # a worker that knows little of what happens meanwhile
        self.settings = settings

    # Writes

    @rule(chosen=ids, start=numbers, label=st.sampled_from(LABELS), now=st.booleans())
    def upsert(self, chosen: list[str], start: int, label: str, now: bool) -> None:
        rows = VECTORS[[(start + n) % len(VECTORS) for n in range(len(chosen))]]
        self._accept(Batch("upsert", chosen, rows, [label] * len(chosen)), now)

    @rule(chosen=ids, now=st.booleans())
    def delete(self, chosen: list[str], now: bool) -> None:
        self._accept(Batch("delete", chosen), now)

    @rule(chosen=ids, label=st.sampled_from(LABELS), now=st.booleans())
    def label(self, chosen: list[str], label: str, now: bool) -> None:
        self._accept(Batch("label", chosen, labels=[label] * len(chosen)), now)

    @rule(chosen=ids)
    def delete_at_once(self, chosen: list[str]) -> None:
        """What waits is overtaken."""
        first = self.handle.ledger.last_sequence() + 1
        self.index.delete(chosen)
        self.applied.append((first, Batch("delete", chosen)))

    @rule(chosen=ids)
    def label_at_once(self, chosen: list[str]) -> None:
        first = self.handle.ledger.last_sequence() + 1
        self.index.label(chosen, ["now"] * len(chosen))
        self.applied.append((first, Batch("label", chosen, labels=[label_text("now")] * len(chosen))))

    def _accept(self, batch: Batch, now: bool) -> None:
        """now : it is applied at once, before all that wait."""
        name = f"b{len(self.accepted)}"
        first = self.handle.ledger.accept(name, batch, lease_until=0).first
        self.accepted.append((name, first, batch))
        self.waiting.append((name, first, batch))
        if now:
            self.apply(-1, late=False, lost=False)

    @precondition(lambda self: self.waiting)
    @rule(which=places, late=st.booleans(), lost=st.booleans())
    def apply(self, which: int, late: bool, lost: bool) -> None:
        """Any that waits. lost : its worker dies before it finishes it, and it is delivered again."""
        name, first, batch = self.waiting[which % len(self.waiting)]
        handle = self.late if late else self.handle
        if lost:
            finish, handle.ledger.finish = handle.ledger.finish, lambda *_, **__: False  # type: ignore[method-assign]
            try:
                apply_batch(handle, name)
            finally:
                handle.ledger.finish = finish  # type: ignore[method-assign]
            handle.ledger.release(name, now=now_milliseconds(), failure="it died", blame_server=True)
            self.done["batches whose worker died before it finished them"] += 1
        else:
            assert apply_batch(handle, name) is not None
            self.waiting.pop(which % len(self.waiting))
            self.done["batches applied, in any order"] += 1
        if not any(first == other for other, _ in self.applied):
            self.applied.append((first, batch))

    @precondition(lambda self: len(self.waiting) > 1)
    @rule(late=st.booleans())
    def apply_backwards(self, late: bool) -> None:
        """All that wait, the newest first."""
        while self.waiting:
            self.apply(-1, late=late, lost=False)

    @precondition(lambda self: len(self.accepted) > len(self.waiting))
    @rule(which=places, long_ago=st.booleans())
    def wake_up(self, which: int, long_ago: bool) -> None:
        """A worker that was paused writes a batch that others have finished; whose tombstones may be forgotten."""
        if long_ago:
            self.sweep()
        _, first, batch = self._finished(which)
        ingest._Application(self.late, batch, first).run()
        self.done["finished batches written again by a worker that was paused"] += 1

    @precondition(lambda self: len(self.accepted) > len(self.waiting))
    @rule(which=places)
    def redeliver(self, which: int) -> None:
        """A finished batch comes again, from its producer and from the queue."""
        name, first, batch = self._finished(which)
        again = self.handle.ledger.accept(name, batch, lease_until=0)
        assert (again.first, again.known) == (first, True)
        assert apply_batch(self.handle, name) is None
        self.done["finished batches delivered again"] += 1

    def _finished(self, which: int) -> tuple[str, int, Batch]:
        waiting = {name for name, _, _ in self.waiting}
        finished = [one for one in self.accepted if one[0] not in waiting]
        return finished[which % len(finished)]

    @rule()
    def sweep(self) -> None:
        sweep.sweep(self.handle, lambda *_: True, lambda *_: None)

    # Generations

    @rule(seed=st.integers(1, 5))
    def publish(self, seed: int) -> None:
        arrays = lsh_model(IndexSettings(**{**vars(self.settings), "seed": seed}), VECTORS).to_arrays()
        published = self.handle.trainer.publish(self._lead(), arrays, kind="lsh", created=0.0, parent=1)
        self._is_target(published.generation)

    @precondition(lambda self: len(self.generations) > 1)
    @rule(which=places)
    def roll_back(self, which: int) -> None:
        kept = [record.generation for record in self.handle.models.records()]
        self._is_target(rollback.rollback(self.handle, self._lead(), kept[which % len(kept)]))

    @precondition(lambda self: self._partitions(lambda state: state.live != self.generations[-1]))
    @rule(which=places, further=st.sampled_from(["", "build", "build and switch", "switch"]), late=st.booleans())
    def begin(self, which: int, further: str, late: bool) -> None:
        """Whatever was begun before and is wanted no more is given up for it. further : what follows at once."""
        target = self.generations[-1]
        partition = self._one_of(lambda state: state.live != target, which)
        building = self.handle.states[partition].building
        if building not in (None, target):
            assert self.handle.generations.abandon(partition, building, self.token)
            self.done["generations given up half built"] += 1
        self.handle.generations.begin(partition, target, self.token)
        if "build" in further:
            reindex.build_chunk(self.late if late else self.handle, partition, target, 0)
        if "switch" in further:
            self._switch(partition)

    @precondition(lambda self: len(self.generations) < 4)
    @rule(seed=st.integers(1, 4), which=places, late=st.booleans())
    def want_another(self, seed: int, which: int, late: bool) -> None:
        """Before what was wanted is built; and that is to go live before it is."""
        for wanted, further in ((seed, "build"), (seed + 1, "switch")):
            self.publish(wanted)
            if self._partitions(lambda state: state.live != self.generations[-1]):
                self.begin(which, further, late)

    @precondition(lambda self: self._partitions(lambda state: bool(state.building)))
    @rule(which=places, late=st.booleans())
    def build(self, which: int, late: bool) -> None:
        partition = self._one_of(lambda state: bool(state.building), which)
        handle = self.late if late else self.handle
        reindex.build_chunk(handle, partition, self.handle.states[partition].building or 0, 0)

    @precondition(lambda self: self._partitions(lambda state: state.building == self.generations[-1]))
    @rule(which=places)
    def switch(self, which: int) -> None:
        self._switch(self._one_of(lambda state: state.building == self.generations[-1], which))

    def _switch(self, partition: int) -> None:
        outcome = self.handle.generations.switch(partition, self.generations[-1], self.token)
        self.done["switches" if outcome is None else "switches refused: incomplete"] += 1

    @precondition(lambda self: len(self.generations) > 1)
    @rule()
    def reindex(self) -> None:
        """To its end, from wherever it is."""
        reindex.reindex(self.handle, self._lead(), self.generations[-1])
        self.done["re-indexes to the end"] += 1

    @rule()
    def retire(self) -> None:
        reindex.retire_all(self.handle)

    def _partitions(self, such: Callable[[State], bool]) -> list[int]:
        """Those whose state is such."""
        self.handle.reload_states()
        return [partition for partition, state in enumerate(self.handle.states) if state.live and such(state)]

    def _one_of(self, such: Callable[[State], bool], which: int) -> int:
        partitions = self._partitions(such)
        return partitions[which % len(partitions)]

    def _lead(self) -> int:
        lead = self.handle.trainer.lead("machine", now=0, until=1)
        assert isinstance(lead, Lead)
        self.token = lead.token
        return lead.token

    def _is_target(self, generation: int) -> None:
        if generation != self.generations[-1]:
            assert generation > self.generations[-1]
            self.generations.append(generation)

    # What must hold

    @rule(number=numbers, k=st.integers(1, 12), radius=st.sampled_from([None, 4]))
    def query(self, number: int, k: int, radius: int | None) -> None:
        """Exactly, or by a radius that takes all in."""
        query = VECTORS[number]
        items = self._expected()
        names = sorted(items)
        rows = np.array([np.frombuffer(items[name][0], np.float32) for name in names]).reshape(-1, DIMENSION)
        plan: dict[str, Any] = {"exact": True} if radius is None else {"radius": radius}
        (answer,) = self.index.query(query, k=k, **plan)
        assert [result.id for result in answer.results] == oracle.naive_search(
            query, names, rows, self.settings.metric, k
        )
        self.done["queries"] += 1

    @rule()
    def verify(self) -> None:
        assert self.index.verify().violations == []

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        if hasattr(self, "index"):
            self.done["steps"] += 1
            assert oracle.stored_items(self.client, "x", self.settings) == self._expected()

    def teardown(self) -> None:
        if hasattr(self, "index"):
            while self.waiting:
                self.apply(0, late=True, lost=False)
            self.verify()
            balance = self.handle.ledger.balance()
            assert (balance.pending, balance.dead) == (0, 0)
            assert balance.holds

    def _expected(self) -> dict[str, tuple[bytes, str]]:
        return oracle.live_items(oracle.replay(self.applied))


def run(client: Any, *, examples: int, steps: int, seed: int | None = None) -> Counter[str]:
    """How often what was done. seed : None for the examples that are always the same.

    Raises what the first failing example raised, reduced.
    """
    done = Counter[str]()
    machine: Any = type("IndexMachine", (IndexMachine,), {"client": client, "done": done})
    run_state_machine_as_test(
        machine if seed is None else hypothesis_seed(seed)(machine),
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=seed is None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return done

"""The course of a run: the items stream in, with trainings in between; then they change, in turns of load and rest."""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import Dataset
from benchmarks.live.clients import Clients, QueryLog, querying
from benchmarks.live.memory import generation_bytes, learning_bytes
from benchmarks.live.plan import INDEX, LivePlan, Place
from benchmarks.live.record import new_record
from benchmarks.live.stream import Stream, streaming
from benchmarks.live.verifying import Verified, Verifier, account, verifying
from benchmarks.live.watch import Timeline, Watch
from benchmarks.report import machine, progress
from benchmarks.services import running_server, running_trainer, running_workers
from stream_hash.client import Index
from stream_hash.service import asking
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle

TRAINING_SECONDS = 300.0
FIRST_ITEMS = 1_000
"""What is there before the first query: an index of fewer than ten items gives short answers, rightly."""

BACK_BYTES = 5.0
"""An item: within so much of it the server's memory counts as being back where it was."""

UNASKED = ("--interval", "1000000", "--labels", "1000000")
"""The trainer waits to be asked, so that there are as many trainings as the run wants."""


@dataclass
class Course:
    """What happened, for figures.py. portions : of the stream, (items before, items after, start, end, seconds), times
    on the monotonic clock. trainings : the runs' records, with `moment`, when what came of it was live everywhere.
    unasked : the records of runs that the trainer began by itself, since live quality dropped.
    rests : of trainings while the producer rested, the quiet stretch before, when it ended, and of the server's memory
    the level before, what the new generation takes, how far it was above where it should be in the end, and how many
    seconds later it no longer was, or None.
    """

    plan: LivePlan
    portions: list[tuple[int, int, float, float, float]] = field(default_factory=list)
    trainings: list[dict[str, Any]] = field(default_factory=list)
    unasked: list[dict[str, Any]] = field(default_factory=list)
    rests: list[dict[str, Any]] = field(default_factory=list)
    verified: list[Verified] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    accounts: dict[str, int] = field(default_factory=dict)
    totals: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    learning_bytes: float = 0.0
    queries: QueryLog = field(init=False)
    timeline: Timeline = field(init=False)

    @property
    def switches(self) -> int:
        return len({run["generation"] for run in self.trainings + self.unasked} - {None})


def run(data: Dataset, plan: LivePlan, folder: Path) -> Course:
    """Run it. folder : for the record, which is there still when this returns."""
    course = Course(plan)
    new_record(folder, data, np.random.default_rng([plan.seed, 0]))
    with ExitStack() as stack:
        place = Place(stack.enter_context(running_server()), folder)
        Index.create(INDEX, plan.settings, place.url, sample=data.training)
        stack.enter_context(running_workers(place.url, plan.workers))
        stack.enter_context(running_trainer(place.url, "--learner", plan.learner, *UNASKED))
        stream = stack.enter_context(streaming(place, plan.seed))
        first = min(FIRST_ITEMS, len(data.items) // 2)
        stream.ingest(0, first)
        clients = stack.enter_context(querying(place, plan.clients, plan.seed, pause_seconds=plan.pause_seconds))
        start = time.monotonic()
        moments = start + 0.95 * plan.seconds * np.random.default_rng([plan.seed, 3]).random(plan.verifications)
        verifier = stack.enter_context(verifying(place, moments.tolist()))
        _Run(course, place, stream, clients, verifier).run(first, len(data.items), start + plan.seconds)
    return course


class _Run:
    def __init__(self, course: Course, place: Place, stream: Stream, clients: Clients, verifier: Verifier) -> None:
        self._course, self._plan, self._place = course, course.plan, place
        self._stream, self._clients, self._verifier = stream, clients, verifier
        self._connections = Connections.open(place.url)
        self._handle = IndexHandle(self._connections.client, INDEX)
        self._watch = Watch(place.url)

    def run(self, first: int, last: int, end: float) -> None:
        self._watch.start()
        self._stream_in(first, last)
        for load in itertools.cycle(["rest", "full"]):
            if self._course.switches >= self._plan.switches and time.monotonic() >= end:
                break
            self._turn(load)
        self._load("rest")
        progress("the last verifications, and the account")
        self._course.verified = self._verifier.end()
        self._course.queries = self._clients.end()
        self._course.timeline = self._watch.end()
        self._course.totals = self._stream.totals()
        asked = {training["id"] for training in self._course.trainings}
        self._course.unasked = [run for run in self._handle.trainer.runs() if run["id"] not in asked]
        report = Index(INDEX, self._place.url).verify()
        self._course.violations = report.violations
        self._course.accounts = account(self._place)
        self._course.facts = machine(self._connections.client)
        self._course.learning_bytes = self._learning_bytes()

    def _stream_in(self, first: int, last: int) -> None:
        """The items, in portions; a training follows each."""
        portions = math.ceil(self._plan.switches / 2)
        edges = np.linspace(first, last, portions + 1).astype(int).tolist()
        for before, after in itertools.pairwise(edges):
            progress(f"items {before:,} to {after:,} stream in")
            self._watch.load = "stream"
            start = time.monotonic()
            seconds = self._stream.ingest(before, after)
            self._course.portions.append((before, after, start, time.monotonic(), seconds))
            self._watch.load = "rest"
            time.sleep(self._plan.window_seconds)
            self._train(after)

    def _turn(self, load: str) -> None:
        """Changes come in slowly; then, under a load, calm, a training and calm again."""
        window = self._plan.window_seconds
        self._load("slow")
        time.sleep(window)
        self._load(load)
        start = time.monotonic()
        time.sleep(window)
        begin = time.monotonic()
        if load == "rest":
            level, old, kept = self._watch.memory(), self._own_bytes(), self._learning_bytes()
            self._train(None)
            end = time.monotonic()
            new = self._own_bytes()
            level += self._learning_bytes() - kept  # one more model: of an index, not of a generation
            excess = self._until_back(end, level + sum(new.values()) - sum(old.values()))
            back = None if excess > 0 else time.monotonic() - end
            self._course.rests.append(
                {"quiet": (start, begin), "end": end, "level": level, "new": new, "excess": excess, "back": back}
            )
        else:
            self._train(None)
        time.sleep(window)

    def _load(self, load: str) -> None:
        self._watch.load = "changing"
        self._stream.change(load)
        if load == "full":
            time.sleep(1.0)  # until the queue is as full as it will be
        self._watch.load = load

    def _train(self, items: int | None) -> None:
        """Have a generation learned; one that the gate refuses goes live by force."""
        request = asking.request_training(self._connections, INDEX, {"force": True, "least": 20})
        training = asking.wait_for(
            self._connections, INDEX, request, timeout_seconds=TRAINING_SECONDS, on_doing=lambda _: None
        )
        progress(f"generation {training['generation']}, {training['decision']}: {training['reason']}")
        self._course.trainings.append({**training, "items": items, "moment": time.monotonic()})

    def _until_back(self, end: float, level: float) -> float:
        """Wait until the server's memory is down to `level`, give or take BACK_BYTES an item; bytes above that."""
        allowed = level + BACK_BYTES * sum(items for items, _ in self._handle.reader.sizes())
        while True:
            time.sleep(0.2)
            excess = self._watch.memory() - allowed
            if excess <= 0 or time.monotonic() - end > self._plan.patience_seconds:
                return excess

    def _learning_bytes(self) -> float:
        return learning_bytes(self._connections.client, self._handle)

    def _own_bytes(self) -> dict[str, float]:
        self._handle.reload_states()
        return generation_bytes(self._connections.client, self._handle, self._handle.states[0].live)


def measure(data: Dataset, plan: LivePlan) -> dict[str, Any]:
    """All figures of this benchmark."""
    from benchmarks.live.figures import figures

    with tempfile.TemporaryDirectory(prefix="sh-live-") as folder:
        course = run(data, plan, Path(folder))
        progress("what exact search finds")
        return {
            "machine": course.facts,
            "data": data.source,
            "plan": {**asdict(plan), "items": len(data.items)},
            **figures(course, data, Path(folder)),
        }

"""The watch: what was going on, twenty times a second."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.live.plan import INDEX
from stream_hash.service.connections import Connections
from stream_hash.service.handle import IndexHandle
from stream_hash.storage.trainer_board import TrainerBoard

LOOK_SECONDS = 0.05
ROLLING = 20
"""Samples, a second: what comes and goes faster is not what is stored."""

CALM, LEARNING, REINDEXING = "calm", "learning", "re-indexing"


@dataclass(frozen=True)
class Sample:
    """load : what the producer was told. phase : of the trainer; re-indexing lasts until the old is deleted. applied :
    items since the index was created. memory : bytes that the server uses, but for what it holds for its clients and
    its append-only file. building : the generation, or 0.
    """

    moment: float
    load: str
    phase: str
    applied: int
    memory: int
    building: int


class Watch(threading.Thread):
    """Looks until it is stopped. load : set by whoever tells the producer what to do."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.load = "rest"
        self.samples: list[Sample] = []
        self.failure: Exception | None = None
        self._connections = Connections.open(url)
        self._handle = IndexHandle(self._connections.client, INDEX)
        self._board = TrainerBoard(self._connections.client, INDEX)
        self._ended = threading.Event()

    def run(self) -> None:
        try:
            while not self._ended.wait(LOOK_SECONDS):
                self.samples.append(self._look())
        except Exception as error:  # noqa: BLE001 - the figures would be wrong without it: raised by `end`
            self.failure = error

    def end(self) -> Timeline:
        """Stop; all that was seen."""
        self._ended.set()
        self.join()
        if self.failure is not None:
            raise self.failure
        return Timeline(self.samples)

    def _look(self) -> Sample:
        handle, load = self._handle, self.load
        handle.reload_states()
        building = max(state.building or 0 for state in handle.states)
        phase = CALM
        if building or any(handle.generations.retiring()):
            phase = REINDEXING
        elif self._board.progress():
            phase = LEARNING
        info = self._connections.client.info("memory")
        memory = info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"]
        applied = handle.ledger.balance().applied
        return Sample(time.monotonic(), load, phase, applied, memory, building)

    def memory(self) -> float:
        """Bytes that the server used during the last second, the median."""
        return float(np.median([sample.memory for sample in self.samples[-ROLLING:]]))


class Timeline:
    """All samples, as columns."""

    def __init__(self, samples: list[Sample]) -> None:
        def column(name: str) -> NDArray[Any]:
            return np.array([getattr(sample, name) for sample in samples])

        self.moment, self.load, self.phase = column("moment"), column("load"), column("phase")
        self.applied, self.memory, self.building = column("applied"), column("memory"), column("building")

    def at(self, moments: NDArray[np.float64]) -> NDArray[np.intp]:
        """The last sample at or before each moment, or the first."""
        return np.maximum(0, np.searchsorted(self.moment, moments, side="right") - 1)

    def stretches(self, phase: str) -> list[slice]:
        """Where the samples are of one phase, stretch by stretch."""
        inside = np.concatenate([[False], self.phase == phase, [False]])
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        return [slice(int(start), int(end)) for start, end in edges.reshape(-1, 2)]

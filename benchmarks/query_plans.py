"""Searches by budget, by learned hash functions: each against the same reads issued bare, and in batches of 64.

Alternating: a query, the same without its labels and metadata, and the bare reads, which are one SUNION of the buckets
that were probed and one MGET of the values that were fetched, spelt out beforehand and nothing done with the replies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import DIMENSION, Dataset
from benchmarks.report import progress
from benchmarks.round_trips import counted
from stream_hash.client import Index
from stream_hash.numerics.evaluation import precision_at_k, recall_at_k
from stream_hash.numerics.grh import GRH
from stream_hash.numerics.learned import learned_model
from stream_hash.numerics.learned_signature import learned_signature
from stream_hash.numerics.model import Model
from stream_hash.numerics.unlabelled import itq_model
from stream_hash.service.answer import Answer
from stream_hash.service.connections import Connections
from stream_hash.service.evaluate import temporary_index
from stream_hash.settings import IndexSettings
from stream_hash.storage.buckets import BucketReader
from stream_hash.storage.reads import Reader

K = 10
BATCH = 64
SAMPLE = 5_000
"""Items that signatures and ITQ learn from, without labels."""


@dataclass(frozen=True)
class Trial:
    """A model's queries by some plan. dtype : of the vectors that are stored."""

    name: str
    model: Callable[[Dataset], Model]
    plan: dict[str, Any]
    settings: IndexSettings


def grh(data: Dataset) -> Model:
    """What a trainer would publish from the tutorial's labels."""
    learned = GRH(16, n_components=1_000, unit_length=True, random_state=0)
    learned.fit(data.training, data.query_labels[-len(data.training) :])
    settings = IndexSettings(DIMENSION, bits=16)
    return learned_model(settings, learned, learned_signature(settings, data.items[:SAMPLE]))


def itq(data: Dataset) -> Model:
    """What `train --unlabelled` publishes, with 14 bits: for recall of the true neighbours."""
    return itq_model(IndexSettings(DIMENSION, bits=14), data.items[:SAMPLE])


_GRH, _ITQ = IndexSettings(DIMENSION, bits=16), IndexSettings(DIMENSION, bits=14, dtype="float16")
TRIALS = (
    Trial("GRH, the default budget", grh, {}, _GRH),
    Trial("GRH, all candidates fetched", grh, {"fetch": None}, _GRH),
    Trial("ITQ, budget 6,000, 600 fetched", itq, {"budget": 6_000}, _ITQ),
    Trial("ITQ, budget 6,000, 1,500 fetched", itq, {"budget": 6_000, "fetch": 1_500}, _ITQ),
)


def plans(
    client: Any, data: Dataset, vectors: NDArray[np.float32], truth: Sequence[Sequence[str]]
) -> list[dict[str, Any]]:
    """A row a trial. truth : ids of the nearest items to each vector, as positions in the data, written out."""
    rows = []
    for model in dict.fromkeys(trial.model for trial in TRIALS):
        trials = [trial for trial in TRIALS if trial.model is model]
        with temporary_index(client, model(data), data.items, settings=trials[0].settings) as handle:
            index = Index(handle.name, Connections(client, None))
            for trial in trials:
                progress(trial.name)
                rows.append({"plan": trial.name, **_measured(client, index, trial, data, vectors, truth)})
    return rows


def _measured(
    client: Any,
    index: Index,
    trial: Trial,
    data: Dataset,
    vectors: NDArray[np.float32],
    truth: Sequence[Sequence[str]],
) -> dict[str, Any]:
    bare = [reads_of(index, vector, trial.plan) for vector in vectors]
    with counted() as counter:
        index.query(vectors[0], K, **trial.plan)
    times: dict[str, list[float]] = {"query": [], "without_records": [], "bare": [], "single": [], "batch": []}
    answers: list[Answer] = []
    for vector, (buckets, values) in zip(vectors, bare, strict=True):
        answers += timed(times["query"], partial(index.query, vector, K, **trial.plan))
        timed(times["without_records"], partial(index.query, vector, K, records=False, **trial.plan))
        timed(times["bare"], partial(bare_reads, client, buckets, values))
    for start in range(0, len(vectors) - BATCH + 1, BATCH):
        some = vectors[start : start + BATCH]
        timed(times["single"], partial(one_by_one, index, some, trial.plan))
        timed(times["batch"], partial(index.query, some, K, **trial.plan))
    unseen = answers[: len(data.queries) - len(data.training)]  # GRH has learned from those that come after
    classes = [[int(data.labels[int(result.id)]) for result in answer.results] for answer in unseen]
    found = [[result.id for result in answer.results] for answer in answers]
    median = {name: float(np.median(seconds)) * 1e3 for name, seconds in times.items() if seconds}
    wanted = data.query_labels[: len(unseen)].tolist()
    return {
        "precision_at_10": float(np.mean([precision_at_k(*pair, K) for pair in zip(classes, wanted, strict=True)])),
        "recall_at_10": float(np.mean([recall_at_k(*pair, K) for pair in zip(found, truth, strict=False)])),
        "probes": float(np.mean([answer.probes for answer in answers])),
        "candidates": float(np.mean([answer.candidates for answer in answers])),
        "fetched": float(np.mean([answer.reranked for answer in answers])),
        "round_trips": counter.count,
        "milliseconds": {name: median[name] for name in ("query", "without_records", "bare")},
        "ratio": _ratio(times["query"], times["bare"]),
        "ratio_without_records": _ratio(times["without_records"], times["bare"]),
        "batch_milliseconds_a_query": median.get("batch", float("nan")) / BATCH,
        "batch_speedup": _ratio(times["single"], times["batch"]),
        "stage_milliseconds": {
            stage: float(np.median([answer.stages[stage] for answer in answers])) * 1e3 for stage in answers[0].stages
        },
    }


def bare_reads(client: Any, buckets: list[str], values: list[str]) -> None:
    client.sunion(buckets)
    client.mget(values)


def one_by_one(index: Index, vectors: NDArray[np.float32], plan: dict[str, Any]) -> None:
    for vector in vectors:
        index.query(vector, K, **plan)


def timed(seconds: list[float], run: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = run()
    seconds.append(time.perf_counter() - start)
    return result


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of what was timed side by side."""
    return float(np.median(np.array(ours) / np.array(theirs))) if len(ours) else float("nan")


def reads_of(index: Index, vector: NDArray[np.float32], plan: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The keys of the buckets and of the values that a query reads in the end."""
    gather, values = BucketReader.gather, Reader.values
    buckets: list[str] = []
    fetched: list[str] = []

    def noting_buckets(self: BucketReader, probes: Any) -> Any:
        buckets[:] = [name for probe in probes for codes in probe.queries for name in self._names(probe, codes)]
        return gather(self, probes)

    def noting_values(self: Reader, wanted: Any) -> Any:
        for partition, numbers in wanted:
            keys = self._keys.partition(partition)
            fetched.extend(keys.value(number) for number in numbers.tolist())
        return values(self, wanted)

    with (
        mock.patch.object(BucketReader, "gather", noting_buckets),
        mock.patch.object(Reader, "values", noting_values),
    ):
        index.query(vector, K, **plan)
    return buckets, fetched


def shown(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as a table."""
    table = [
        [
            "plan",
            "P@10",
            "recall@10",
            "probes",
            "candidates",
            "fetched",
            "query ms",
            "without records",
            "bare",
            "ratio",
            "without records",
            "batch, ms a query",
            "speed-up",
            "stages",
        ]
    ]
    for row in rows:
        spent, stages = row["milliseconds"], row["stage_milliseconds"]
        table.append(
            [
                row["plan"],
                f"{row['precision_at_10']:.3f}",
                f"{row['recall_at_10']:.3f}",
                *(f"{row[count]:,.0f}" for count in ("probes", "candidates", "fetched")),
                *(f"{spent[name]:.2f}" for name in ("query", "without_records", "bare")),
                f"{row['ratio']:.2f}",
                f"{row['ratio_without_records']:.2f}",
                f"{row['batch_milliseconds_a_query']:.2f}",
                f"{row['batch_speedup']:.2f}",
                ", ".join(f"{stage} {milliseconds:.2f}" for stage, milliseconds in stages.items()),
            ]
        )
    return table

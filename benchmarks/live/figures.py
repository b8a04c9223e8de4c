"""The figures of a run, from what its processes noted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import Dataset
from benchmarks.live.clients import QueryLog
from benchmarks.live.plan import K
from benchmarks.live.record import Record
from benchmarks.live.run import Course
from benchmarks.live.watch import CALM, LEARNING, REINDEXING, ROLLING, Timeline

PHASES = (CALM, LEARNING, REINDEXING)
LOADS = ("rest", "full")


def figures(course: Course, data: Dataset, folder: Path) -> dict[str, Any]:
    """All of them, as plain JSON values."""
    queries, timeline = course.queries, course.timeline
    aside = np.array([(one.start, one.end) for one in course.verified]).reshape(-1, 2)
    return {
        "counts": _counts(course, queries, timeline),
        "latency": _latency(queries, timeline, aside),
        "ingest": _rates(timeline),
        "reindex": _reindex(course, timeline, aside, len(data.items)),
        "memory": _memory(course, timeline, len(data.items)),
        "generations": _generations(course, queries, data, Record(folder)),
        "errors": sorted(set(queries.failures))[:10],
        "violations": [v for one in course.verified for v in one.violations][:10] + course.violations[:10],
    }


def _counts(course: Course, queries: QueryLog, timeline: Timeline) -> dict[str, Any]:
    decisions = [run["decision"] for run in course.trainings + course.unasked]
    phases = timeline.phase[timeline.at(np.array([one.start for one in course.verified]))]
    return {
        "queries": len(queries.moment),
        "failed": len(queries.failures),
        "short": int((queries.results < K).sum()),
        "doubled_in_answers": int((queries.different < queries.results).sum()),
        "switches": course.switches,
        "by_gate": decisions.count("live"),
        "by_force": decisions.count("forced"),
        "unasked": sum(run["generation"] is not None for run in course.unasked),
        "verifications": len(course.verified),
        "verified_while_reindexing": int((phases == REINDEXING).sum()),
        "violations": sum(len(one.violations) for one in course.verified),
        "violations_at_the_end": len(course.violations),
        "accepted_by_the_producer": course.totals["accepted"],
        "dead_letters": course.totals["dead_letters"],
        "changes": course.totals["changes"],
        **course.accounts,
    }


def _outside(moments: NDArray[np.float64], aside: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which moments no verification overlaps."""
    inside = np.zeros(len(moments), dtype=np.bool_)
    for start, end in aside:
        inside |= (moments >= start) & (moments <= end)
    return ~inside


def _latency(queries: QueryLog, timeline: Timeline, aside: NDArray[np.float64]) -> dict[str, Any]:
    """Milliseconds by load and phase, and the ratios of the p99s."""
    at = timeline.at(queries.moment)
    load, phase, clean = timeline.load[at], timeline.phase[at], _outside(queries.moment, aside)
    found: dict[str, Any] = {}
    for name in LOADS:
        rows = {}
        for stage in PHASES:
            seconds = queries.seconds[(load == name) & (phase == stage) & clean]
            p50, p99 = np.percentile(seconds, [50, 99]) if len(seconds) else (np.nan, np.nan)
            rows[stage] = {"queries": len(seconds), "p50": _plain(1e3 * p50), "p99": _plain(1e3 * p99)}
        found[name] = {**rows, "p99_ratio": _ratio(rows[REINDEXING]["p99"], rows[CALM]["p99"])}
    return found


def _rates(timeline: Timeline) -> dict[str, Any]:
    """Items a second applied at full speed, by phase. Verifications take long under this load; all phases have them."""
    steps, applied = np.diff(timeline.moment), np.diff(timeline.applied)
    same = (timeline.load[1:] == "full") & (timeline.load[:-1] == "full")
    same &= timeline.phase[1:] == timeline.phase[:-1]
    found: dict[str, Any] = {}
    for stage in PHASES:
        chosen = same & (timeline.phase[1:] == stage)
        found[stage] = {
            "seconds": _plain(float(steps[chosen].sum())),
            "items_per_second": _ratio(float(applied[chosen].sum()), float(steps[chosen].sum())),
        }
    found["ratio"] = _ratio(found[REINDEXING]["items_per_second"], found[CALM]["items_per_second"])
    return found


def _reindex(course: Course, timeline: Timeline, aside: NDArray[np.float64], items: int) -> dict[str, Any]:
    """Seconds to re-index all items, from its beginning until the old generation is deleted, against the seconds of
    streaming as many in; both with the clients querying and nothing else going on.
    """
    last = course.portions[-1][3]
    seconds: dict[str, list[float]] = {load: [] for load in LOADS}
    building: list[float] = []
    for stretch in timeline.stretches(REINDEXING):
        start, end = float(timeline.moment[stretch.start]), float(timeline.moment[stretch.stop - 1])
        load = str(timeline.load[stretch.start])
        if start > last and load in seconds and not _overlapped(start, end, aside):
            seconds[load].append(end - start)
            if load == "rest":
                built = timeline.moment[stretch][timeline.building[stretch] > 0]
                building.append(float(built[-1] - built[0]) if len(built) else 0.0)
    streamed = [portion for portion in course.portions if not _overlapped(portion[2], portion[3], aside)]
    streamed = streamed or course.portions
    rate = sum(p[1] - p[0] for p in streamed) / sum(p[4] for p in streamed)
    ingest, rest = items / rate, float(np.median(seconds["rest"])) if seconds["rest"] else None
    return {
        "ingest_seconds": ingest,
        "reindex_seconds": {load: sorted(values) for load, values in seconds.items()},
        "building_seconds": sorted(building),
        "ratio": _ratio(rest, ingest),
    }


def _overlapped(start: float, end: float, aside: NDArray[np.float64]) -> bool:
    return bool(((aside[:, 0] <= end) & (aside[:, 1] >= start)).any())


def _memory(course: Course, timeline: Timeline, items: int) -> dict[str, Any]:
    """Of re-indexes while the producer rests, bytes an item and table: what the second generation takes, by its keys;
    how far the server's memory rose; and how long after it was back, but for what the new one takes more than the old.
    """
    stored = items * course.plan.settings.tables
    rows = []
    for rest in course.rests:
        built = _between(timeline, rest["quiet"][1], rest["end"]) & (timeline.building > 0)
        late = float(np.median(timeline.memory[built][-ROLLING:])) if built.any() else np.nan
        rows.append(
            {
                "second_generation": {kind: size / stored for kind, size in rest["new"].items()},
                "second_generation_bytes": sum(rest["new"].values()) / stored,
                "rise_bytes": _plain((late - rest["level"]) / stored),
                "excess_bytes": max(0.0, rest["excess"] / stored),
                "back_after_seconds": rest["back"],
            }
        )
    return {"rests": rows, "kept_for_learning_bytes": course.learning_bytes}


def _between(timeline: Timeline, start: float, end: float) -> NDArray[np.bool_]:
    return np.asarray((timeline.moment >= start) & (timeline.moment <= end))


def _generations(course: Course, queries: QueryLog, data: Dataset, record: Record) -> list[dict[str, Any]]:
    """A row a generation: who let it live, after how many items, and precision@10 of the clients' queries while it did,
    against that of exact search over the items of that time (from the last portion on, over those of the end).
    """
    streamed = {portion[1] for portion in course.portions}
    exact = {count: exact_precision(data.items[:count], data.labels[:count], data) for count in sorted(streamed)}
    alive = np.flatnonzero(record.alive)
    at_the_end = exact_precision(np.array(record.vectors[alive]), data.labels[alive], data)
    rows = []
    runs = {run["generation"]: run for run in course.trainings + course.unasked if run["generation"]}
    streaming = {run["generation"]: run["items"] for run in course.trainings if run["generation"] and run["items"]}
    for generation in np.unique(queries.generation).tolist():
        own = queries.precision[queries.generation == generation]
        run = runs.get(generation, {})
        items = next((streaming[later] for later in sorted(streaming) if later >= generation), None)
        rows.append(
            {
                "generation": generation,
                "decision": run.get("decision", "lsh"),
                "candidate": run.get("figures", {}).get("candidate"),
                "items": items or len(data.items),
                "trained": run.get("trained", 0),
                "queries": len(own),
                "precision_at_10": float(own.mean()),
                "standard_error": float(own.std() / np.sqrt(len(own))),
                "exact_precision_at_10": exact[items] if items else at_the_end,
            }
        )
    return rows


def exact_precision(items: NDArray[np.float32], labels: NDArray[np.int64], data: Dataset) -> float:
    """precision@10 of exact search by cosine, over all held-out queries."""
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    right = 0
    for start in range(0, len(data.queries), 100):
        scores = data.queries[start : start + 100] @ unit.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        right += int((labels[best] == data.query_labels[start : start + 100, None]).sum())
    return right / K / len(data.queries)


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _plain(value: float) -> float | None:
    """A figure as JSON can hold it."""
    return None if np.isnan(value) else float(value)

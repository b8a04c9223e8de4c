"""How learning stands: what is live, what is on its way, what came of each run. Everything is plain JSON values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from stream_hash.clock import now_milliseconds
from stream_hash.service.handle import IndexHandle
from stream_hash.service.quality import current
from stream_hash.storage.generations import CHUNK
from stream_hash.storage.trainer_board import TrainerBoard

SHORT: Final = ("id", "started", "decision", "reason", "generation", "asked")
"""Of a run, what `status` shows; `generations` shows all."""


def training_status(handle: IndexHandle) -> dict[str, Any]:
    """What `status` shows of an index's learning.

    building, retiring : generations. reindex : how far the target has come, None when it is live everywhere. trainer :
    who works on it now. training : the last run. labelled : items with a label. labels_since : of these, those that
    were labelled since that run. quality : how good answers were along the stream (quality.py), None before
    there is a mean.
    """
    handle.reload_states()
    board = TrainerBoard(handle.client, handle.name)
    leader, shown = board.leader(now_milliseconds()), board.progress() or {}
    run = next(iter(handle.trainer.runs(1)), None)
    beyond = handle.ledger.last_sequence() + 1
    return {
        "building": sorted({state.building for state in handle.states if state.building}),
        "retiring": sorted({generation for some in handle.generations.retiring() for generation in some}),
        "reindex": _reindex(handle, shown if leader else {}),
        "trainer": {"holder": leader.holder, "doing": shown.get("phase")} if leader else None,
        "training": {name: run.get(name) for name in SHORT} if run else None,
        "labelled": handle.reader.count_labelled(above=0, below=beyond),
        "labels_since": handle.reader.count_labelled(above=run.get("seen", 0) if run else 0, below=beyond),
        "quality": current(handle).shown(),
    }


def generation_rows(handle: IndexHandle) -> list[dict[str, Any]]:
    """The generations and the runs of training, oldest first.

    A generation has a `state`: live, building, retiring or kept, and the `run` that made it, if one did. A run that
    made none stands as a row without a generation, whose state is what was decided. quality : the mean of what
    arriving items found while that generation answered, and how many they were.
    """
    handle.reload_states()
    retiring = {generation for some in handle.generations.retiring() for generation in some}
    runs = handle.trainer.runs()
    by_generation = {run["generation"]: run for run in runs if run.get("generation") is not None}
    summary = current(handle)
    rows = [
        {
            **asdict(record),
            "quality": summary.of_generation(record.generation),
            "state": _state(handle, record.generation, retiring),
            "run": by_generation.pop(record.generation, None),
        }
        for record in handle.models.records()
    ]
    rows += [
        {
            "generation": None,
            "sha256": None,
            "kind": run.get("learner"),
            "created": run.get("started"),
            "parent": run.get("parent"),
            "origin": None,
            "figures": run.get("figures") or {},
            "quality": None,
            "state": run.get("decision"),
            "run": run,
        }
        for run in runs
        if run.get("generation") is None
    ]
    return sorted(rows, key=lambda row: row["created"] or 0.0)


def _state(handle: IndexHandle, generation: int, retiring: set[int]) -> str:
    if any(state.building == generation for state in handle.states):
        return "building"
    if any(state.live == generation for state in handle.states):
        return "live"
    return "retiring" if generation in retiring else "kept"


def _reindex(handle: IndexHandle, shown: dict[str, Any]) -> dict[str, Any] | None:
    target = handle.trainer.target()
    if target is None or all(state.live == target for state in handle.states):
        return None
    sizes = [items for items, _ in handle.reader.sizes()]
    done = sum(
        items if state.live == target else min(items, handle.generations.count_built(partition, target) * CHUNK)
        for partition, (items, state) in enumerate(zip(sizes, handle.states, strict=True))
    )
    rate = shown.get("rate") if shown.get("generation") == target else None
    return {"generation": target, "done": done, "items": sum(sizes), "rate": rate}

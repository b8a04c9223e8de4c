"""What a run showed, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.live.watch import CALM, LEARNING, REINDEXING
from benchmarks.report import table


def tables(result: dict[str, Any]) -> list[str]:
    plan, counts = result["plan"], result["counts"]
    heading = (
        f"{result['data']}: {plan['items']:,} items, {plan['minutes']:g} minutes, {plan['workers']} workers, "
        f"{plan['clients']} query clients"
    )
    return [heading, _counted(counts), _latency(result), _ingest(result), _memory(result), _generations(result)]


def _counted(counts: dict[str, Any]) -> str:
    zero = {
        "failed queries": counts["failed"],
        "empty or short answers": counts["short"],
        "answers with an item twice": counts["doubled_in_answers"],
        "items lost": counts["lost"],
        "items doubled": counts["doubled"],
        "items deleted and there": counts["deleted_and_there"],
        "items not as they were sent last": counts["not_as_sent_last"],
        "accepted, and neither applied, pending nor dead": counts["accepted"] - counts["applied"] - counts["dead"],
        f"violations at {counts['verifications']} random moments": counts["violations"],
        "violations at the end": counts["violations_at_the_end"],
    }
    changes = ", ".join(f"{name} {number:,}" for name, number in counts["changes"].items())
    rows = [
        ("the run", "in all"),
        ("queries", f"{counts['queries']:,}"),
        ("items accepted", f"{counts['accepted']:,} ({changes})"),
        (
            "generation switches (target: at least 8)",
            f"{counts['switches']}: {counts['by_gate']} by the gate, {counts['by_force']} by force; "
            f"{counts['unasked']} that nobody asked for",
        ),
        *((f"{name} (target: 0)", f"{number:,}") for name, number in zero.items()),
        ("verifications while re-indexing", f"{counts['verified_while_reindexing']}"),
    ]
    return table(rows)


def _latency(result: dict[str, Any]) -> str:
    rows = [("query, p50 / p99 ms", CALM, LEARNING, REINDEXING, "p99, re-indexing to calm (target: at most 2)")]
    for load, name in (("rest", "nothing is written"), ("full", "writing at full speed")):
        found = result["latency"][load]
        cells = [f"{_shown(found[p]['p50'])} / {_shown(found[p]['p99'])}" for p in (CALM, LEARNING, REINDEXING)]
        rows.append((name, *cells, _shown(found["p99_ratio"])))
    return table(rows)


def _ingest(result: dict[str, Any]) -> str:
    ingest, again = result["ingest"], result["reindex"]
    both = again["reindex_seconds"]
    rows = [
        ("measure", "figure"),
        *(
            (f"ingest, {phase}, items/s", _shown(ingest[phase]["items_per_second"], 0))
            for phase in (CALM, LEARNING, REINDEXING)
        ),
        ("ratio, re-indexing to calm (target: at least 0.5)", _shown(ingest["ratio"])),
        ("ingest of all items, s", _shown(again["ingest_seconds"])),
        ("re-index of all items, s, nothing is written", _all(both["rest"])),
        ("  of these until it was live", _all(again["building_seconds"])),
        ("the same, writing at full speed", _all(both["full"])),
        ("ratio, re-index to ingest (target: at most 0.5)", _shown(again["ratio"])),
    ]
    return table(rows)


def _memory(result: dict[str, Any]) -> str:
    rests = result["memory"]["rests"]

    def of(name: str) -> str:
        return _all([row[name] for row in rests if row[name] is not None], 1)

    kept = f"{result['memory']['kept_for_learning_bytes'] / 1e6:.1f} MB in all"
    never = sum(row["back_after_seconds"] is None for row in rests)
    rows = [
        ("memory while building, bytes an item and table", "median (least to greatest)"),
        ("the second generation's keys (target: at most 30)", of("second_generation_bytes")),
        ("the server's memory above the level before", of("rise_bytes")),
        ("back to the level before, s after (target: at most 60)", of("back_after_seconds")),
        ("kept for learning: the last models, the learner", kept),
        ("not back within what was looked at", f"{never} of {len(rests)}"),
    ]
    return table(rows)


def _generations(result: dict[str, Any]) -> str:
    rows = [("generation", "went live", "items", "learned from", "queries", "P@10", "± s.e.", "exact P@10")]
    rows += [
        (
            str(row["generation"]),
            {"lsh": "first", "live": "by the gate", "forced": "by force"}.get(row["decision"], row["decision"]),
            f"{row['items']:,}",
            f"{row['trained']:,}",
            f"{row['queries']:,}",
            f"{row['precision_at_10']:.3f}",
            f"{row['standard_error']:.3f}",
            f"{row['exact_precision_at_10']:.3f}",
        )
        for row in result["generations"]
    ]
    return table(rows)


def _shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _all(values: list[float], digits: int = 2) -> str:
    if not values:
        return "-"
    return f"{np.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"

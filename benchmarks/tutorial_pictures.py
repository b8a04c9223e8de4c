"""The tutorial's pictures: runs the page's own blocks and draws the figures that they leave behind.

python -m benchmarks.tutorial_pictures
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.linalg  # noqa: F401  # loads its BLAS, so that the limit below holds for it, too
from matplotlib import rc_context
from matplotlib.figure import Figure
from threadpoolctl import threadpool_limits

PAGE: Final = Path(__file__).parent.parent / "docs" / "tutorial.md"
NAMES: Final = {"lsh": "LSH", "itq": "ITQ", "tutorial": "tutorial", "grh": "GRH"}
BUDGETS: Final = (10, 20, 50, 100)
STYLE: Final = {"svg.hashsalt": "stream-hash", "svg.fonttype": "none", "font.size": 11}
"""The same figures give the same file."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(code, what the page says it prints) of each python block; empty where it says nothing."""
    yield from re.findall(r"^```python\n(.*?)^```$(?:\n+```text\n(.*?)^```$)?", page, re.MULTILINE | re.DOTALL)


def draw(namespace: dict[str, Any], directory: Path) -> None:
    """Both pictures. namespace : what all of the page's blocks have defined."""
    with rc_context(STYLE):
        _candidates(namespace["curves"], namespace["exact"]).savefig(
            directory / "candidates.svg", metadata={"Date": None}
        )
        _online(namespace["online"]).savefig(directory / "online.svg", metadata={"Date": None})


def _candidates(curves: dict[str, tuple[Any, Any]], exact: float) -> Figure:
    figure = Figure(figsize=(7.2, 4.2), layout="constrained", facecolor="white")
    axes = figure.subplots()
    for method, (means, errors) in curves.items():
        axes.errorbar(BUDGETS, means, yerr=errors, marker="o", markersize=4, capsize=2, label=NAMES[method])
    axes.axhline(exact, color="grey", linestyle=":", label="exact search, all 1,297")
    axes.set_xscale("log")
    axes.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
    axes.minorticks_off()
    axes.set_xlabel("candidates (the same for each query), 16 bits, 300 labels")
    axes.set_ylabel("precision@10, 5 splits ± standard error")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    return figure


def _online(online: Any) -> Figure:
    """online : (chunks, 2), sevens and the others."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots()
    chunks = np.arange(1, len(online) + 1)
    axes.plot(chunks, online[:, 1], marker="o", markersize=4, label="the other digits")
    axes.plot(chunks, online[:, 0], marker="o", markersize=4, label="sevens")
    axes.axvline(5.5, color="grey", linestyle=":", label="the first label 7")
    axes.set_xticks(chunks)
    axes.set_xlabel("chunks of labelled items learned from")
    axes.set_ylabel("precision@10, 50 candidates, 5 splits")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    return figure


def main() -> None:
    """Run the page, then draw next to it."""
    namespace: dict[str, Any] = {}
    # small matrices: threads would wait for each other longer than they work
    with threadpool_limits(1):
        for code, _ in blocks(PAGE.read_text(encoding="utf-8")):
            exec(code, namespace)  # noqa: S102  # our own page
    draw(namespace, PAGE.parent / "tutorial")


if __name__ == "__main__":
    main()

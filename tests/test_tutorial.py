"""Every block of the tutorial is run as it stands, and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import scipy.linalg  # noqa: F401  # loads its BLAS, so that the limit below holds for it, too
from threadpoolctl import threadpool_limits

from benchmarks.tutorial_pictures import PAGE, blocks, draw
from tests.pages import environment, run, transcript

TEXT = PAGE.read_text(encoding="utf-8")

DECIMAL = re.compile(r"\d+\.\d+")
TOLERANCE = 0.02
"""Another BLAS, or another version of scikit-learn, may choose another of two equal candidates."""


def assert_same_output(printed: str, shown: str) -> None:
    """Words, whole numbers and signs as they are; decimals to within the tolerance, spacing aside."""
    assert DECIMAL.sub("~", printed).split() == DECIMAL.sub("~", shown).split()
    for ours, theirs in zip(DECIMAL.findall(printed), DECIMAL.findall(shown), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=TOLERANCE, rel=TOLERANCE), f"{printed}\nshown:\n{shown}"


@pytest.mark.timeout(600)
def test_the_page_prints_what_it_shows_and_its_pictures_can_be_drawn_from_it(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {}
    walk = list(blocks(TEXT))
    assert len(walk) == TEXT.count("```python")
    # small matrices: threads would wait for each other longer than they work
    with threadpool_limits(1):
        for code, shown in walk:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, str(PAGE), "exec"), namespace)  # noqa: S102  # our own page
            assert_same_output(printed.getvalue(), shown)
        curves = {method: means for method, (means, _) in namespace["curves"].items()}
        assert (curves["lsh"] < curves["tutorial"]).all()
        assert (curves["tutorial"] < curves["grh"]).all()
        assert (namespace["online"][-1] > namespace["online"][0]).all()
        draw(namespace, tmp_path)
    assert {picture.name for picture in tmp_path.iterdir()} == set(re.findall(r"\(tutorial/(.*?\.svg)\)", TEXT))


def without_times(table: str) -> str:
    """A table of `evaluate` without its last column, which is milliseconds."""
    return "\n".join(re.sub(r"\S+$", "", line.rstrip()) if "  " in line else line for line in table.splitlines())


@pytest.mark.timeout(300)
def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    commands = transcript(TEXT)
    assert len(commands) == 2
    variables = environment(tmp_path / "none")
    for command, shown in commands:
        printed = run(command, variables, tmp_path, timeout_seconds=240)
        assert_same_output(without_times(printed), without_times(shown))


@pytest.mark.parametrize(
    "printed",
    ["radius 2   precision@10 0.64   mean candidates 22.5", "radius 3   precision@10 0.67   mean candidates 22.5", ""],
)
def test_another_figure_would_be_noticed(printed: str) -> None:
    with pytest.raises(AssertionError):
        assert_same_output(printed, "radius 2   precision@10 0.67   mean candidates 22.5\n")

"""The README's picture: runs `stream-hash demo --json` and draws what it says as an SVG.

python -m benchmarks.picture docs/demo.svg
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

WIDTH, HEIGHT = 720, 330
LEFT, TOP, BOTTOM = 60, 60, 70
BAR = 64


def draw(rows: list[dict[str, Any]], title: str) -> str:
    """Bars of precision@10, one a plan; exact search as a line across."""
    floor = HEIGHT - BOTTOM
    height = floor - TOP
    exact = next(row for row in rows if row["plan"] == "exact")
    level = floor - height * exact["precision_at_10"]
    step = (WIDTH - LEFT - 40) / len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="28" font-size="15" font-weight="bold" fill="#1f2933">{title}</text>',
    ]
    for tenths in range(0, 11, 2):
        y = floor - height * tenths / 10
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 40}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e4e7eb"/>')
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end" fill="#52606d">{tenths / 10:.1f}</text>')
    for position, row in enumerate(rows):
        x = LEFT + step * position + (step - BAR) / 2
        top = floor - height * row["precision_at_10"]
        colour = "#7b8794" if row is exact else "#2f6fde"
        centre = x + BAR / 2
        tall = floor - top > 30
        value = f'y="{top + 18 if tall else top - 6:.1f}" fill="{"#ffffff" if tall else "#1f2933"}"'
        name = row["plan"] if row["radius"] is None else f"radius {row['radius']}"
        parts += [
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{BAR}" height="{floor - top:.1f}" fill="{colour}" rx="3"/>',
            f'<text x="{centre:.1f}" {value} text-anchor="middle">{row["precision_at_10"]:.2f}</text>',
            f'<text x="{centre:.1f}" y="{floor + 20}" text-anchor="middle" fill="#1f2933">{name}</text>',
            f'<text x="{centre:.1f}" y="{floor + 40}" text-anchor="middle" fill="#52606d">'
            f"{row['candidates']:,.0f} ranked</text>",
        ]
    across = f'x1="{LEFT}" x2="{WIDTH - 40}" y1="{level:.1f}" y2="{level:.1f}"'
    parts.append(f'<line {across} stroke="#7b8794" stroke-dasharray="5 4"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
def main(target: Path) -> None:
    """Draw the demo's precision@10 against the radius into TARGET."""
    command = [sys.executable, "-m", "stream_hash.cli", "demo", "--json"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [row for row in map(json.loads, printed.splitlines()) if "plan" in row]
    target.write_text(draw(rows, "precision@10 of 200 queries on 1,597 digits, by Hamming radius"), encoding="utf-8")


if __name__ == "__main__":
    main()

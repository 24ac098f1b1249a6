"""A small picture for the documents: points and lines on one linear and one logarithmic axis, as SVG text.

No plotting library: the picture is part of the repository, so its text should change only where its data do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 460
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 44, 56
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito's, told apart with any colour vision


@dataclass(frozen=True)
class Series:
    """Points that a line joins."""

    name: str
    points: Sequence[tuple[float, float, str]]
    """x (0..1), y (above 0), label."""


def draw_picture(
    path: Path, title: str, x_label: str, y_label: str, series: Sequence[Series], y_range: tuple[int, int]
) -> None:
    """Write the picture.

    Args:
        path: of the SVG file.
        title: above it.
        x_label: x runs from 0 to 100 %.
        y_label: y is logarithmic; what lies outside is drawn at the edge.
        series: at most one a colour.
        y_range: the least and the greatest power of ten shown.
    """
    low, high = y_range

    def at(x: float, y: float) -> tuple[float, float]:
        up = (min(max(math.log10(y) if y > 0 else low, low), high) - low) / (high - low)
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_text(WIDTH / 2, 22, title, "middle", 15), _text(WIDTH / 2, HEIGHT - 12, x_label, "middle")]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<g transform="rotate(-90 18 {middle})">{_text(18, middle, y_label, "middle")}</g>')
    for percent in range(0, 101, 20):
        x, _ = at(percent / 100, 1)
        parts += [_line(x, TOP, x, HEIGHT - BOTTOM), _text(x, HEIGHT - BOTTOM + 18, f"{percent} %", "middle")]
    for power in range(low, high + 1):
        _, y = at(0, 10.0**power)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y), _text(LEFT - 8, y + 4, f"{10.0**power:g}", "end")]
    for i, (one, color) in enumerate(zip(series, COLORS, strict=False)):
        places = [(*at(x, y), label) for x, y, label in one.points]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        for x, y, label in places:
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
            parts.append(_text(x + 6, y - 6, label, "start", 11, color))
        parts.append(_text(WIDTH - RIGHT - 8, TOP + 18 + 17 * i, one.name, "end", 13, color))
    body = "\n".join(parts)
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 13, color: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{color}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'

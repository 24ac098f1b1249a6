"""Charts as SVG elements: scales, axes, lines.

Colours and fonts are CSS classes, so that one picture suits light, dark and print. ElementTree escapes all text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from xml.etree import ElementTree as ET

import numpy as np

from raysweep.terminal import Metric, significant

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 40
LOG_FROM = 20
INVISIBLE = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 127, 0xFFFE, 0xFFFF))
"""Control characters that XML does not allow."""


def is_log(values: Iterable[float]) -> bool:
    """Whether numbers want a logarithmic axis: all are positive, the largest over LOG_FROM times the smallest."""
    known = list(values)
    return min(known) > 0 and max(known) / min(known) > LOG_FROM


@dataclass
class Scale:
    """Maps values to pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            widen = abs(self.low) * 0.1 or 1.0
            self.low, self.high = (self.low / 2, self.high * 2) if self.log else (self.low - widen, self.high + widen)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (map(math.log10, (self.low, self.high, value))) if self.log else (self.low, self.high, value)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def nearest(self, value: float) -> float:
        """Return the pixel of a value, or that of the end beyond which it lies."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values for the axis's labels."""
        return self._log_ticks(count) if self.log else self._linear_ticks(count)

    def _log_ticks(self, count: int) -> list[float]:
        exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        step = max(1, math.ceil(len(exponents) / (count + 1)))
        decades = self._within(10.0**exponent for exponent in exponents[::step])
        some, many = (self._within(f * 10.0**e for e in exponents for f in factors) for factors in ((1, 3), (1, 2, 5)))
        return next((found for found in (decades, some) if len(found) > 2), many)

    def _linear_ticks(self, count: int) -> list[float]:
        raw = (self.high - self.low) / count
        power = 10.0 ** math.floor(math.log10(raw))
        step = power * next(factor for factor in (1, 2, 5, 10, 20) if factor * power >= raw)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]

    def _within(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]


def score_scale(scores: Sequence[float], start: float, end: float, metric: Metric, maximize: bool) -> Scale:
    """Return the axis of scores: logarithmic where they span decades, and the worst of them beyond its end.

    A loss that blew up must not flatten the others; an accuracy cannot.
    """
    worst = 0.0 if metric.percent else 0.05
    low, high = np.quantile(scores, (worst, 1.0) if maximize else (0.0, 1 - worst)).tolist()
    return Scale(low, high, start, end, is_log((low, high)) and not metric.percent)


@dataclass
class Chart:
    """One picture; `root` is its <svg>."""

    title: str
    description: str
    name: str  # its class, and the stem of its ids
    width: int = WIDTH
    height: int = HEIGHT
    root: ET.Element = field(init=False)

    def __post_init__(self) -> None:
        self.root = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {self.width} {self.height}")
        labels = f"{self.name}-title {self.name}-desc"
        self.root.attrib |= {"class": f"chart {self.name}", "role": "img", "aria-labelledby": labels}
        self.add("title", text=self.title, id=f"{self.name}-title")
        self.add("desc", text=self.description, id=f"{self.name}-desc")

    def add(self, tag: str, parent: ET.Element | None = None, text: str = "", **attributes: str | float) -> ET.Element:
        """Add an element; `class_` and `data_trial` become class and data-trial, floats are rounded."""
        element = ET.SubElement(self.root if parent is None else parent, tag)
        element.text = text.translate(INVISIBLE)
        for key, value in attributes.items():
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            element.set(key.rstrip("_").replace("_", "-"), shown.translate(INVISIBLE))
        return element

    def axes(self, x: Scale, y: Scale, x_label: str, y_label: str, write: Callable[[float], str] = significant) -> None:
        """Draw grid, labels and names of both axes; `write` makes a label of a value on the upright one."""
        group = self.add("g", class_="axes", aria_hidden="true")
        for value in y.ticks():
            self.add("line", group, x1=x.start, x2=x.end, y1=y(value), y2=y(value), class_="grid")
            self.add("text", group, write(value), x=f"{x.start - 6}", y=f"{y(value) + 4:.1f}", class_="tick end")
        for value in x.ticks(6):
            if value == int(value):
                self.add("text", group, f"{value:.0f}", class_="tick middle", x=f"{x(value):.1f}", y=f"{y.start + 17}")
        middle = f"{(x.start + x.end) / 2:.0f}"
        self.add("text", group, x_label, x=middle, y=f"{y.start + 34}", class_="tick middle")
        if y_label:
            self.add("text", group, y_label, x=f"{x.start}", y=f"{y.end - 2}", class_="tick")

    def to_string(self) -> str:
        """Return the picture as text that can stand in a page."""
        return ET.tostring(self.root, encoding="unicode")


def points(xs: Iterable[float], ys: Iterable[float], x: Scale, y: Scale) -> list[str]:
    """Return a curve as `points` of polylines, broken where a value is missing or cannot be shown."""
    places = [
        f"{x(place):.1f},{y.nearest(value):.2f}" if math.isfinite(value) and not (y.log and value <= 0) else ""
        for place, value in zip(xs, ys, strict=True)
    ]
    return [" ".join(stretch) for is_there, stretch in groupby(places, bool) if is_there]

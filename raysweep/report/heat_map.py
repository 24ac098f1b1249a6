"""The picture of what a network takes for what: a row a class, a column an answer."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.report.mistakes import WhatItGetsWrong, shortened
from raysweep.report.svg import Chart

LONGEST_NAME = 18
"""Letters of a class's name that are shown at most."""
LETTER = 6.8
"""Pixels that a letter takes at most, by and large."""
SIDE = 480
"""Pixels that the cells take in all, at most."""
LARGEST_CELL, NUMBERED_CELL = 40, 20
"""Pixels of a cell at most, and from which on it shows its number."""


def heat_map(mistakes: WhatItGetsWrong) -> Chart:
    """Draw the confusion matrix: right answers in one colour, wrong ones in another, by their share of the class."""
    names = [shortened(name, LONGEST_NAME) for name in mistakes.names]
    grid = _Grid(20 + LETTER * max(map(len, names)), min(LARGEST_CELL, SIDE / len(names)))
    side = grid.cell * len(names)
    description = (
        "A row for each class, a column for each answer; the darker, the larger the share of the class's images. "
        "The diagonal has the right answers. The tables have the numbers."
    )
    width, height = round(2 * grid.start + side), round(grid.start + side + 12)
    chart = Chart("Confusion matrix", description, "confusion", max(width, 620), height)
    chart.add("rect", class_="grid", fill="none", x=grid.start, y=grid.start, width=side, height=side)
    for place, name in enumerate(names):
        middle, before = grid.edge(place + 0.5), grid.start - 6
        chart.add("text", text=name, x=before, y=middle + 4, class_="tick end")
        turned = f"rotate(-55 {middle:.1f} {before:.1f})"
        chart.add("text", text=name, x=middle, y=before, class_="tick", transform=turned)
    for truth, row in enumerate(mistakes.matrix.tolist()):
        for answer, images in enumerate(row):
            if images:
                _draw_cell(chart, mistakes, truth, answer, images, grid)
    return chart


@dataclass(frozen=True)
class _Grid:
    """The cells begin at so many pixels from the left, and from the top."""

    start: float  # where the first begins, after the classes' names
    cell: float  # height and width of each

    def edge(self, place: float) -> float:
        """Return where so many cells end."""
        return self.start + self.cell * place


def _draw_cell(chart: Chart, mistakes: WhatItGetsWrong, truth: int, answer: int, images: int, grid: _Grid) -> None:
    """Draw one cell, with its number if there is room, and the text that shows where it is pointed at."""
    of, names = int(mistakes.matrix[truth].sum()), mistakes.names
    x, y, cell = grid.edge(answer), grid.edge(truth), grid.cell
    group = chart.add("g", class_="c0" if truth == answer else "c1")
    chart.add("rect", group, x=x, y=y, width=cell, height=cell, class_="cell", fill_opacity=0.08 + 0.92 * images / of)
    what = "answered right" if truth == answer else f"taken for {names[answer]}"
    chart.add("title", group, f"{names[truth]}, {what}: {images:,} of {of:,}")
    if cell >= NUMBERED_CELL:
        chart.add("text", group, str(images), class_="number middle", x=x + cell / 2, y=y + cell / 2 + 4)

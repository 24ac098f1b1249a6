"""Which values of a sweep file reach no trial, because another key replaces them. In: a sweep. Out: messages.

It is worked out from the file, not from the trials, so that it holds whatever `random` happens to draw. A key of `base`
that an axis or a case sets, too, is a default, and no fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raysweep.sweepfile.document import Keys
from raysweep.sweepfile.patch import flatten
from raysweep.sweepfile.plan import Axis, Setting, rows_of, settings_of_base
from raysweep.sweepfile.schema import Sweep
from raysweep.terminal import some_of


@dataclass
class _Use:
    """What becomes of one value, over the rows that use it."""

    is_kept: bool = False  # in some trial
    is_lost: bool = False  # in some trial, which has no other value in its place
    replaced_by: list[Setting] = field(default_factory=list)


def replaced_values(sweep: Sweep) -> list[str]:
    """Return a problem for each value that is replaced in every trial which could have it."""
    uses: dict[Keys, _Use] = {}
    for row in rows_of(sweep, _choices(sweep)):
        fixed: list[Axis] = [[[setting]] for setting in (*settings_of_base(sweep), *row.settings)]
        axes = [*fixed, *row.axes]
        for own, axis in enumerate(axes):
            for point in axis:
                others = [*axes[:own], [point], *axes[own + 1 :]]
                for setting in point:
                    for key in _keys(setting):
                        use = uses.setdefault(_way(setting, key), _Use())
                        _note(use, key, list(_replacing(key, setting, others, list(sweep.base))))
    return [
        sweep.source.problem(way, _message(use.replaced_by))
        for way, use in uses.items()
        if not use.is_kept and (use.is_lost or way[0] != "base")
    ]


def _choices(sweep: Sweep) -> list[Axis]:
    """An axis for each key of `random` or `search`, with all that it may draw; a number that it draws is not known.

    A key that not every proposal has is on a point of its axis where it has no value.
    """
    draws: list[tuple[Keys, Any]] = [
        *((("random", key), draw) for key, draw in sweep.random.items() if not isinstance(draw, int)),
        *((("search", "space", key), draw) for key, draw in (sweep.search.space if sweep.search else {}).items()),
    ]
    return [
        [
            *([Setting(str(way[-1]), each, (*way, "choice", i))] for i, each in enumerate(draw.choice or [None])),
            *([[]] if getattr(draw, "when", None) else []),
        ]
        for way, draw in draws
    ]


def _keys(setting: Setting) -> Iterator[str]:
    """Yield the dotted key of each value in a setting; a name that stands for a section is the section's name."""
    for key, value in flatten({setting.key: setting.value}):
        is_name = isinstance(value, str) and key == setting.key and not key.endswith(".name")
        yield f"{key}.name" if is_name else key


def _way(setting: Setting, key: str) -> Keys:
    inner = key.removeprefix(setting.key).split(".")[1:]
    return (*setting.way, *inner) if isinstance(setting.value, Mapping) else setting.way


def _replacing(key: str, setting: Setting, axes: Sequence[Axis], base: Sequence[str]) -> Iterator[list[Setting | None]]:
    """Yield which setting replaces a setting's value at a key, for each point of an axis; None where it stays.

    Axes that cannot replace it are left out. `base` has the keys of that section, in order.
    """

    def rank(each: Setting) -> tuple[int, int]:
        """The place in the order in which a plan merges settings."""
        return (0, base.index(each.key)) if each.way[0] == "base" else (1, each.key.count("."))

    for axis in axes:
        if any(f"{key}.".startswith(f"{other.key}.") for other in axis[0]):
            later = ([other for other in point if rank(other) > rank(setting)] for point in axis)
            yield [max((each for each in others if _replaces(each, key)), key=rank, default=None) for others in later]


def _replaces(other: Setting, key: str) -> bool:
    """Whether a setting that is merged into a config takes away what is at a key (see `patch`)."""
    if not f"{key}.".startswith(f"{other.key}."):
        return False
    is_merged = isinstance(other.value, Mapping) and "name" not in other.value and key != other.key
    return not is_merged or key.removeprefix(f"{other.key}.").split(".")[0] in other.value


def _gives(other: Setting, key: str) -> bool:
    """Whether a setting that replaces what is at a key has another value for it; that may be none at all."""
    names = {each.removesuffix(".name") for each in _keys(other)}
    return other.value is None or key.removesuffix(".name") in names


def _note(use: _Use, key: str, replacing: Sequence[Sequence[Setting | None]]) -> None:
    """Note what becomes of a key's value in a row: it is replaced if one axis does that at every point."""
    always = [other for found in replacing if all(found) for other in found if other]
    use.is_kept |= not always
    use.is_lost |= bool(always) and all(
        any(other is None or not _gives(other, key) for other in found) for found in replacing
    )
    if always:  # what takes the value away tells more than what gives another in its place
        use.replaced_by.append(min(always, key=lambda other: _gives(other, key)))


def _message(replaced_by: Sequence[Setting]) -> str:
    by = some_of(list(dict.fromkeys(".".join(map(str, other.way_of_key)) for other in replaced_by)))
    first = replaced_by[0]
    if "." in first.key:
        return f"reaches no trial: it is replaced by {by}; set it in one place"
    instead = f", or write {first.key}.name, which keeps it where it fits" if isinstance(first.value, str) else ""
    return f"reaches no trial: its whole section is replaced by {by}; set it there{instead}"

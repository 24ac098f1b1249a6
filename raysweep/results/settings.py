"""The settings in which the trials of a sweep differ, and their values for people. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raysweep.store.record import Record
from raysweep.sweepfile.patch import get


def varied_settings(records: Sequence[Record]) -> list[str]:
    """Return the keys, dotted, that take more than one value in these trials."""
    keys = dict.fromkeys(key for record in records for key in record.axes if key != "seed")
    return [key for key in keys if len({setting_text(record, key) for record in records}) > 1]


def setting(record: Record, key: str) -> Any:
    """Return a trial's value of a dotted key, or None where it has none."""
    value = get(record.config, key)
    return record.axes.get(key) if value is None else value


def setting_text(record: Record, key: str) -> str:
    """Return a trial's value for people; of a section, its name and whatever is not off, zero or empty."""
    value = record.axes[key] if key in record.axes else setting(record, key)
    if isinstance(value, Mapping) and "name" in value:
        others = {name: entry for name, entry in value.items() if name != "name" and entry}
        texts = ", ".join(f"{name}={json.dumps(entry, default=str)}" for name, entry in others.items())
        return f"{value['name']}({texts})" if others else str(value["name"])
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else "-" if value is None else json.dumps(value, default=str)


def in_words(settings: Mapping[str, str]) -> str:
    """Return settings, texts by label, in a line; those that a config does not have are left out."""
    return ", ".join(
        f"{label} {text}" for label, text in settings.items() if text != "-" or set(settings.values()) == {"-"}
    )


def setting_texts(records: Sequence[Record], key: str) -> list[str]:
    """Return the trials' values of a setting for people: numbers in as many digits as tell them apart."""
    return in_few_digits([setting_text(record, key) for record in records])


def in_few_digits(texts: Sequence[str]) -> list[str]:
    """Return values of a setting, numbers in as many digits as tell them apart; others as they are."""
    different = set(texts) - {"-"}
    if not are_numbers(different):
        return list(texts)
    for digits in (3, 4):
        short = {text: f"{float(text):.{digits}g}" for text in different} | {"-": "-"}
        if len(set(short.values())) == len(short):
            return [short[text] for text in texts]
    return list(texts)


def in_order(values: Iterable[str]) -> list[str]:
    """Return the different values of a setting, numbers by size."""
    different = dict.fromkeys(values)
    return sorted(different, key=float if are_numbers(different) else None)


def are_numbers(texts: Iterable[str]) -> bool:
    """Return whether all texts are numbers."""
    try:
        list(map(float, texts))
    except ValueError:
        return False
    return True


def most_telling(records: Sequence[Record], keys: Sequence[str]) -> list[str]:
    """Return the keys in the order in which they tell these trials apart, each given those before it.

    A table that has no room for all settings shows the first. Keys that tell nothing more come last, as they came.
    """
    texts = {key: [setting_text(record, key) for record in records] for key in keys}
    rest, chosen = list(keys), list[str]()
    groups = list[Any]([None] * len(records))
    while rest:
        finer = {key: list(zip(groups, texts[key], strict=True)) for key in rest}
        best = max(rest, key=lambda key: len(set(finer[key])))
        groups = finer[best]
        rest.remove(best)
        chosen.append(best)
    return chosen

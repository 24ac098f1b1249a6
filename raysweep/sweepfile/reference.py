"""The reference of the sweep file, docs/sweep_file.md: made from the models, as `raysweep schema --markdown`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from raysweep.config import Config, classes_of, names_of
from raysweep.loops import CLASSIFY, loop_named
from raysweep.sweepfile.schema import Draw, Sweep

HEAD = """# The sweep file

<!-- Made from the models by `make reference`; change their docstrings instead. -->

A sweep file is one YAML mapping. Only `name` is needed: every other key has a default. `raysweep plan SWEEP.yaml`
lists its trials and trains nothing; [recipes](recipes.md) has whole files to start from. Numbers are written as they
are (`1e-3`), and a name may stand for its section (`model: resnet18` for `model: {name: resnet18}`). Any key can be
patched on the command line: `lr=0.1`, `model.width=8`, `limits.gpu_hours=2`.

```yaml
name: example                      # the run folder's name
base:                              # what every trial starts from
  data: digits
  model: {name: baseline_block, width: 8}
  epochs: 12
grid:                              # the trials: all combinations, here 3 x 2
  lr: [0.2, 0.05, 0.01]
  optimizer.weight_decay: [0, 5e-4]
```

An editor with a YAML language server (in VS Code: Red Hat's YAML extension) completes such a file, explains its keys
and marks what is wrong. Put the schema beside the file, `python -m raysweep schema > sweep.schema.json`, and at the
file's top this:

```yaml fragment
# yaml-language-server: $schema=sweep.schema.json
```
"""

EXAMPLES = {
    "grid": "grid: {lr: [0.1, 0.01], model.width: [8, 16]}   # 4 trials",
    "zip": "zip: {model: [resnet18, resnet34], lr: [0.1, 0.05]}   # 2 trials",
    "random": "random: {samples: 20, lr: {log_uniform: [0.001, 1]}, augment: {choice: [none, shift]}}",
    "search": (
        "search:\n  trials: 60\n  generation: 8\n"
        "  space: {lr: {log_uniform: [0.001, 1]}, augment: {choice: [none, shift]}}"
    ),
    "cases": "cases: {plain: {augment: none}, shifted: {augment: shift, grid: {lr: [0.1, 0.05]}}}   # 3 trials",
    "exclude": "grid: {lr: [1, 0.1], model: [resnet18, resnet34]}\nexclude: [{model: resnet34, lr: 1}]   # 3 trials",
    "seeds": "seeds: [0, 1, 2]   # each config three times",
    "objective": "objective: [val_acc, flops]   # or val_loss alone",
    "scheduler": "scheduler: {name: asha, eta: 3, rungs: [1/9, 2/9]}",
    "resources": "resources: {gpus: 0.5}   # two trials on each GPU",
    "cluster": 'cluster: {nodes: 2, gpus_per_node: 4, slurm: {time: "12:00:00", partition: gpu}}',
    "checkpoints": "checkpoints: {every_minutes: 10, keep_best: 1}",
    "storage": "storage: s3://my-bucket/runs",
    "until": "until: 5   # of the epochs that each trial's schedule is made for",
    "start": "start: {weights: pulled/best}   # or {run: runs/first, trial: '3f9ab04c1d22', epoch: 30}",
    "limits": "limits: {trials: 200, gpu_hours: 50, wall_hours: 12}",
    "evaluate": "evaluate: {tta: [0, 4]}",
    "report": "report: {images: false}",
    "confirm": "confirm: {top: 3, seeds: 5}",
    "data": "base: {data: {name: folder, path: pets, image_size: 64, val_fraction: 0.1}}",
    "model": "base: {model: {name: resnet18, width: 16}}",
    "lr_factors": "base: {lr_factors: {conv1: 0.1, layer1: 0.1, layer2: 0.3}}",
    "freeze": "base: {freeze: [conv1, bn1, 'layer[12]']}",
    "mix": "base: {mix: {mixup: 0.2, cutmix: 1}}",
    "optimizer": "base: {optimizer: {name: adamw, weight_decay: 0.05}, lr: 0.001}",
    "lr_schedule": "base: {epochs: 30, lr_schedule: {name: step, milestones: [10, 20], gamma: 0.1}}",
    "augment": "base: {augment: [{flip: {p: 0.5}}, {crop: {padding: 2}}]}",
    "normalize": "base: {normalize: {mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}}",
    "ema": "base: {ema: {horizon_epochs: 2}}",
}
"""An example of each section, as it may stand in a file beside `name`."""


def reference() -> str:
    """Return the reference, as Markdown."""
    trial = loop_named(CLASSIFY).config
    parts = [HEAD, "## The keys of the file\n", _table(Sweep)]
    parts += _sections(Sweep)
    parts += ["## The keys of a trial\n", "They stand under `base`, in a case, and, plain or dotted, on every axis.\n"]
    parts += [_table(trial), *_sections(trial)]
    return "\n".join(parts)


def settings_of(loop: str) -> str:
    """Return the reference of a loop's settings and metrics, as Markdown."""
    trained_by = loop_named(loop)
    trial, inner = trained_by.config, kinds_by_section(trained_by.config)
    parts = [f"# The settings of loop {loop}\n", f"{_summary([trial])}\n", _table(trial)]
    parts += [f"### {key}\n\n{_table(kind)}" for key, kinds in inner.items() for kind in kinds]
    if trained_by.metrics:
        ranked = [f"`{metric}` ({mode})" for metric, mode in trained_by.metrics.items()]
        parts.append(f"Trials are ranked by {' or '.join(ranked)}; the first is the default.\n")
    return "\n".join(parts)


def kinds_by_section(root: type[BaseModel]) -> dict[str, list[type[BaseModel]]]:
    """Return the classes that each section inside may have, those of inner sections by dotted key."""
    found: dict[str, list[type[BaseModel]]] = {}
    for key, field in root.model_fields.items():
        for kind in classes_of(field.annotation):
            found.setdefault(key, []).append(kind)
            for inner, kinds in kinds_by_section(kind).items():
                found.setdefault(f"{key}.{inner}", []).extend(kinds)
    return found


def _sections(root: type[BaseModel]) -> Iterator[str]:
    """Yield a heading, an example and the tables of each key that has any of them."""
    for key, field in root.model_fields.items():
        kinds: list[type[BaseModel]] = (
            [Draw] if key == "random" else [each for each in classes_of(field.annotation) if each.model_fields]
        )
        if key not in EXAMPLES:
            continue
        yield f"### {key}\n"
        yield f"{field.description or _summary(kinds)}\n"
        yield f"```yaml fragment\n{EXAMPLES[key]}\n```\n"
        yield from [f"Names: {names}.\n"] if (names := _names(key)) else []
        for kind in kinds:
            if len(kinds) > 1 and "name" in kind.model_fields:
                yield f"`name: {'|'.join(names_of(kind)) or 'NAME'}`: {_summary([kind])}\n"
            yield _table(kind)
            inner = {name: classes_of(each.annotation) for name, each in kind.model_fields.items()}
            yield from (f"`{name}`:\n\n{_table(each)}" for name, found in inner.items() for each in found)


def _names(section: str) -> str:
    """Return the registered names of a section, such as the networks."""
    return ", ".join(f"`{name}`" for name in loop_named(CLASSIFY).names().get(section, ()))


def _summary(kinds: list[type[BaseModel]]) -> str:
    return " ".join((kinds[0].__doc__ or "").split()) if kinds else ""


def _table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    rows = ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
    for key, property in schema["properties"].items():
        if key == "name" and "const" in property:
            continue
        kinds = classes_of(model.model_fields[key].annotation)
        meaning = " ".join(property.get("description", "").split()) or _summary(kinds)
        cells = [f"`{key}`", _in_words(property, schema.get("$defs", {})), _default(model, key), meaning]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n" if len(rows) > 2 else ""


def _default(model: type[BaseModel], key: str) -> str:
    field = model.model_fields[key]
    if field.is_required():
        return "must be given"
    value = field.get_default()
    if isinstance(value, Config):
        return f"`{value.model_dump()['name']}`" if "name" in type(value).model_fields else ""
    return "" if value is None or value in ("", {}, []) else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else f"{value:,g}" if isinstance(value, float) else str(value)


def _in_words(property: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """Return what a value may be, of its JSON Schema."""
    if "const" in property or "enum" in property:
        return ", ".join(f"`{_plain(each)}`" for each in property.get("enum", [property.get("const")]))
    if any(key in property for key in ("anyOf", "oneOf")):
        kinds = [_in_words(each, defs) for each in property.get("anyOf", property.get("oneOf"))]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if "$ref" in property:
        inner = defs[property["$ref"].rpartition("/")[2]]
        name = inner.get("properties", {}).get("name", {})
        return _in_words(name, defs) if "const" in name else "a section"
    kind = property.get("type")
    if kind == "array":
        return f"[{_in_words(property['items'], defs)}, ...]" if property.get("items") else "a list"
    words = {"integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false"}
    bounds = [f"{sign} {property[key]:,}" for key, sign in BOUNDS.items() if key in property]
    return " ".join([words.get(str(kind), "a mapping" if kind == "object" else ""), ", ".join(bounds)]).strip()


BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}

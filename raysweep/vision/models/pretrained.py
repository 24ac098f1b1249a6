"""Weights that a network begins with: the file that `model.weights` names, read once, then loaded by every trial.

* find_weights    the file of a config, on this machine; nothing is ever downloaded
* read_weights    the file as `Pretrained`, which travels to the trials beside the images
* begin           a network with these weights, its frozen parameters frozen
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import nn

from raysweep.errors import DataError, UserError, did_you_mean
from raysweep.terminal import some_of
from raysweep.vision.config import ModelConfig, TrialConfig
from raysweep.vision.data.dataset import Channels
from raysweep.vision.models.build import AUXILIARY, TORCHVISION_PREFIX, build_model
from raysweep.vision.models.parts import check_factors, freeze

PULLED = ("model.safetensors", "config.yaml")
"""What of a folder that `raysweep pull` made is read."""


@dataclass(frozen=True)
class Pretrained:
    """Weights to begin with."""

    packed: npt.NDArray[np.uint8]
    """The tensors, as the bytes of a safetensors file."""
    sha256: str
    """That of the file."""
    source: str
    """The file, for messages."""
    mean_std: tuple[Channels, Channels] | None = None
    """What the input was normalised by when they were trained, on the scale 0..1; None where the file does not say."""

    def to_arrays(self) -> dict[str, Any]:
        """Return it as arrays and plain values, for Ray's object store."""
        known = {"sha256": self.sha256, "source": self.source, "mean_std": self.mean_std}
        return {"weights": self.packed, "weights_known": known}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Pretrained | None:
        """Return what `to_arrays` gave; None where there are no weights among the arrays."""
        return cls(arrays["weights"], **arrays["weights_known"]) if "weights" in arrays else None

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name, copies of their own."""
        return load_safetensors(self.packed.tobytes())


# ---------------------------------------------------------------------------------------------------------
# Finding and reading the file


def find_weights(config: ModelConfig, sweep_folder: Path) -> list[Path]:
    """Return the files that `weights` names: none, one, or two of a pulled folder.

    Raises:
        DataError: a file is absent; the message says where it was looked for and how to get it.
    """
    if config.weights is None:
        return []
    if config.weights_of_torchvision:
        return [_of_torchvision(config)]
    path = sweep_folder / Path(config.weights).expanduser()
    paths = [path / name for name in PULLED] if path.is_dir() else [path]
    for each in paths:
        if not each.is_file():
            advice = " of a folder that `raysweep pull` made" if path.is_dir() else ""
            raise DataError(f"model.weights: no file {each}{advice}")
    return paths


def _of_torchvision(config: ModelConfig) -> Path:
    """Return the file of torchvision's weights in the cache of torch.hub, where torchvision itself would put it."""
    weights = _entry(config)
    file = Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]
    if not file.is_file():
        code = f"from torchvision.models import get_weight; get_weight('{weights}').get_state_dict(check_hash=True)"
        raise DataError(
            f"model.weights: {config.weights} of {config.name} is not on this machine: no file {file}; raysweep does "
            f"not download it unasked. To fetch its {weights.meta['_file_size']:,.0f} MB from {weights.url}: "
            f'python -c "{code}"'
        )
    return file


def _entry(config: ModelConfig) -> Any:
    """Return the row of torchvision's table of weights; DataError if it has none of that name."""
    network = config.name.removeprefix(TORCHVISION_PREFIX)
    try:
        table = torchvision.models.get_model_weights(network)
    except ValueError as error:
        raise DataError(f"model.weights: unknown network {config.name!r}") from error
    known = list(table.__members__)
    if config.weights not in known:
        meant = did_you_mean(str(config.weights), known)
        raise DataError(f"model.weights: {config.name} has no {config.weights!r}{meant}; known: {', '.join(known)}")
    return table[str(config.weights)]


def read_weights(config: ModelConfig, sweep_folder: Path) -> Pretrained | None:
    """Read the file that `weights` names; None if the network begins with random weights.

    Raises:
        DataError: the file is absent, is damaged, or holds no weights.
    """
    files = find_weights(config, sweep_folder)
    if not files:
        return None
    file = files[0]
    try:
        data = file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        tensors = _tensors(data, file)
        mean_std = _mean_std(config, files)
    except OSError as error:
        raise DataError(f"model.weights: {file}: cannot read: {error.strerror}") from error
    if config.weights_of_torchvision and not digest.startswith(_digest_in_name(file)):
        raise DataError(f"model.weights: {file}: is not the file that its name says (sha256 {digest[:16]}); delete it")
    return Pretrained(packed(tensors), digest, str(file), mean_std)


def packed(tensors: Mapping[str, torch.Tensor]) -> npt.NDArray[np.uint8]:
    """Return tensors as the bytes of a safetensors file."""
    alone = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    return np.frombuffer(save_safetensors(alone), np.uint8)


def _digest_in_name(file: Path) -> str:
    """Return the beginning of the checksum that torch.hub's files have in their names."""
    found = re.search(r"-([0-9a-f]{8,})\.", file.name)
    return found[1] if found else ""


def _tensors(data: bytes, file: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, by name."""
    try:
        if file.suffix == ".safetensors":
            return load_safetensors(data)
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a torn or foreign file leads an unpickler to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"model.weights: {file}: cannot be read as weights: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(each, torch.Tensor) for each in content.values()):
        raise DataError(f"model.weights: {file}: is no state dict, a mapping of names to tensors (torch.save)")
    return {str(name): tensor for name, tensor in content.items()}


def _mean_std(config: ModelConfig, files: list[Path]) -> tuple[Channels, Channels] | None:
    if config.weights_of_torchvision:
        preset = _entry(config).transforms()
        return tuple(preset.mean), tuple(preset.std)
    if len(files) == 1:
        return None
    try:
        given = YAML(typ="safe", pure=True).load(files[1])["input"]
        mean, std = (tuple(map(float, given[key])) for key in ("mean", "std"))
    except (YAMLError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"model.weights: {files[1]}: is not as `raysweep pull` wrote it: {error}") from error
    return mean, std  # type: ignore[return-value]  # three numbers each


# ---------------------------------------------------------------------------------------------------------
# Into a network


def begin(config: TrialConfig, num_classes: int, pretrained: Pretrained | None) -> nn.Module:
    """Return the network of a trial as training begins: pretrained weights loaded, frozen parameters frozen.

    What is random comes from torch's global generator.

    Raises:
        UserError: it cannot be built, or weights, `freeze` or `lr_factors` do not fit it.
    """
    model = build_model(config.model, num_classes)
    if pretrained is not None:
        load_weights(model, pretrained, config.model.name, num_classes)
    freeze(model, config.freeze)
    check_factors(model, config.lr_factors)
    return model


def load_weights(model: nn.Module, pretrained: Pretrained, name: str, num_classes: int) -> None:
    """Load weights into a network; its head, the layer with an output for each class, stays if the numbers differ.

    Raises:
        UserError: a parameter is missing, unexpected, or of another shape.
    """
    given, expected = _as_torchvision_names_them(pretrained.tensors(), name), model.state_dict()
    other = [key for key in expected if key in given and given[key].shape != expected[key].shape]
    head = other if _is_head(other, given, expected, num_classes) else []
    faults = {
        "missing": [key for key in expected if key not in given and not key.endswith("num_batches_tracked")],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [f"{key} {_shape(given[key])}, not {_shape(expected[key])}" for key in other if not head],
    }
    if any(faults.values()):
        found = "; ".join(f"{what}: {some_of(keys)}" for what, keys in faults.items() if keys)
        raise UserError(f"model.weights: {pretrained.source} has other weights than {name} takes: {found}")
    model.load_state_dict({key: tensor for key, tensor in given.items() if key not in head}, strict=False)


def _is_head(
    keys: list[str], given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], num_classes: int
) -> bool:
    """Whether these parameters are all of one layer, and differ in the number of classes alone."""
    layers, counts = {key.rpartition(".")[0] for key in keys}, {given[key].shape[:1] for key in keys}
    same_input = all(given[key].shape[1:] == expected[key].shape[1:] for key in keys)
    of_classes = all(expected[key].shape[:1] == (num_classes,) for key in keys)
    return len(layers) == len(counts) == 1 and same_input and of_classes


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


_OF_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.)")


def _as_torchvision_names_them(tensors: Mapping[str, torch.Tensor], name: str) -> Mapping[str, torch.Tensor]:
    """Leave out auxiliary heads, which raysweep's networks do not have; name a DenseNet's layers as its code does.

    torchvision does the same to its own files.
    """
    if not name.startswith(TORCHVISION_PREFIX):
        return tensors
    return {_OF_DENSENET.sub(r"\1\2", key): each for key, each in tensors.items() if not key.startswith(AUXILIARY)}

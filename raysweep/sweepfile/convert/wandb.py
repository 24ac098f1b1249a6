"""Reads a W&B sweep file (https://docs.wandb.ai/models/sweeps/sweep-config-keys). W&B itself is not imported."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from raysweep.config import Config, LoopConfig
from raysweep.errors import SweepFileError, did_you_mean
from raysweep.sweepfile.convert.distributions import Constant, Distribution, DrawOf, kind_of
from raysweep.sweepfile.convert.hyperband import EarlyTerminate, asha_of
from raysweep.sweepfile.convert.space import Space
from raysweep.sweepfile.document import Keys, Source
from raysweep.sweepfile.hints import SLIPS
from raysweep.sweepfile.messages import in_words

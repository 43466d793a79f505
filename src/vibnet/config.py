"""Frozen settings of a run."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from vibnet.errors import ConfigError

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "constant", "halving")


@dataclass(frozen=True)
class Settings:
    """How a model is trained: a dense phase, a phase with gates, and fine-tuning after the cut.

    Attributes:
        seed: of weights, gates, noise and the order of the data.
        batch: examples in a step.
        dense_epochs: epochs before the gates.
        gate_epochs: epochs with gates.
        tune_epochs: epochs of the small model after the cut.
        optimizer: "adam", "adamw" or "sgd".
        lr: learning rate of the weights.
        gate_lr: learning rate of the gates, which have no weight decay.
        tune_lr: learning rate of the weights after the cut.
        momentum: of sgd.
        weight_decay: of the weights; added to the gradient by adam and sgd, decoupled by adamw.
        dense_schedule: of the learning rates in the dense phase: "cosine" to 0, "constant", or
            "halving" ten times.
        gate_schedule: the same for the phase with gates and for fine-tuning.
        gamma: loss per nat, see `vibnet.penalty`.
        gamma_rise: share of the gate epochs over which gamma rises linearly from 0.
        budget: what the small model may cost, or its largest error on validation: "macs=5%",
            "weights=3k", "memory=200kB", "latency=2ms", "error=1.6"; gamma is then where the
            steering begins. "" for none.
        clip: largest norm of the gradient; 0 for none.
        accumulate: batches whose gradients are added up for one step.
        ema: decay of an average of the weights that is evaluated and kept; 0 for none.
        autocast: "" or "bfloat16".
        channels_last: weights and activations of convolutions lie channels last in memory while
            training, which is faster on most CPUs; what comes out is contiguous again, or channels
            last where it was given so.
        distil: share of the loss that is the distance to the dense model's answers; 0 for none.
        temperature: of the answers that are compared when distilling.
        shrink: take dead units out while training.
        patience: epochs that a unit must have been dead before it goes.
        margin: a unit counts as dead below a signal-to-noise ratio of 1 / margin.
    """

    seed: int = 0
    batch: int = 100
    dense_epochs: int = 5
    gate_epochs: int = 40
    tune_epochs: int = 0
    optimizer: str = "adam"
    lr: float = 1e-3
    gate_lr: float = 1e-2
    tune_lr: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 0.0
    dense_schedule: str = "constant"
    gate_schedule: str = "cosine"
    gamma: float = 1e-4
    gamma_rise: float = 0.0
    budget: str = ""
    clip: float = 0.0
    accumulate: int = 1
    ema: float = 0.0
    autocast: str = ""
    channels_last: bool = False
    distil: float = 0.0
    temperature: float = 2.0
    shrink: bool = True
    patience: int = 3
    margin: float = 2.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kinds = (int, float) if field.type is float else (field.type,)
            self._check(field.name, type(value) in kinds, f"of type {_name(field.type)}")
        self._check("seed", -(2**63) <= self.seed < 2**63, "a number of 64 bits")
        for name in ("batch", "accumulate", "patience"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("dense_epochs", "gate_epochs", "tune_epochs", "gamma", "clip", "weight_decay"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value >= 0, "finite and at least 0")
        for name in ("lr", "gate_lr", "tune_lr", "temperature"):
            value = getattr(self, name)
            self._check(name, math.isfinite(value) and value > 0, "finite and above 0")
        for name in ("gamma_rise", "distil"):
            self._check(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")
        for name in ("momentum", "ema"):
            self._check(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._check("margin", 1 <= self.margin < math.inf, "finite and at least 1")
        for name, known in (
            ("optimizer", OPTIMIZERS),
            ("dense_schedule", SCHEDULES),
            ("gate_schedule", SCHEDULES),
            ("autocast", ("", "bfloat16")),
        ):
            self._check(name, getattr(self, name) in known, f"one of {', '.join(map(repr, known))}")

    def _check(self, name: str, good: bool, rule: str) -> None:
        if not good:
            raise ConfigError(f"settings: {name} must be {rule}, got {getattr(self, name)!r}.")

    def replaced(self, **changes: Any) -> "Settings":
        """The settings with some changed, given as values or as text.

        Raises:
            ConfigError: an unknown name, or a value of another type or out of range.
        """
        fields = {f.name: f.type for f in dataclasses.fields(self)}
        for name in changes:
            if name not in fields:
                raise ConfigError(f"there is no setting {name!r}. There are: {', '.join(fields)}.")
        return dataclasses.replace(
            self, **{name: _as(fields[name], name, value) for name, value in changes.items()}
        )


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))


def _as(kind: Any, name: str, value: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if isinstance(value, bool):
            raise ValueError(value)
        if kind is int and (isinstance(value, int) or re.fullmatch(r"-?\d+", str(value))):
            return int(value)
        if kind is int:
            number = float(value)
            if number != int(number):
                raise ValueError(value)
            return int(number)
        return kind(value)
    except (KeyError, ValueError, OverflowError, TypeError) as error:
        raise ConfigError(
            f"the setting {name} is of type {_name(kind)}, but {value!r} is given."
        ) from error

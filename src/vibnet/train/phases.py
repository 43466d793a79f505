"""What training is doing: the models of the phases, the optimiser, and how they are saved."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from vibnet.config import Settings
from vibnet.cost import measure
from vibnet.errors import ConfigError
from vibnet.graph.sites.prices import totals
from vibnet.graph.sites.structure import fingerprint
from vibnet.surgery.attach import attach, parameter_groups
from vibnet.surgery.gated import Gated
from vibnet.surgery.prune import Report, prune
from vibnet.train.average import Average
from vibnet.train.budget import Budget
from vibnet.train.schedule import rise
from vibnet.train.shrink import Patience, shrink
from vibnet.train.steer import Steering


@dataclass(frozen=True)
class Record:
    """One epoch.

    Attributes:
        phase: "dense", "gate" or "tune".
        epoch: of the phase, counted from 1.
        loss: mean of the loss without the penalty, in nats.
        nats: of all gates, by their prices; 0 in the other phases.
        validation: mean of the metric on the validation set.
        kept: units of every gated site that evaluation keeps.
        weights: of convolutions and linear layers that stay.
        macs: multiply-adds an example that stay.
        gamma: loss per nat at the end of the epoch; 0 in the other phases.
    """

    phase: str
    epoch: int
    loss: float
    nats: float
    validation: float
    kept: dict[str, int]
    weights: int
    macs: int
    gamma: float = 0.0


def optimizer(settings: Settings, groups: list[dict[str, Any]]) -> Optimizer:
    """The optimiser that the settings name."""
    if settings.optimizer == "sgd":
        return SGD(groups, momentum=settings.momentum, fused=True)
    kind = Adam if settings.optimizer == "adam" else AdamW
    return kind(groups, fused=True)


@dataclass
class State:
    """Everything that changes while training. `steps`: batches in an epoch."""

    settings: Settings
    example: Any
    options: Mapping[str, Any]
    model: nn.Module
    steps: int = 1
    phase: str = "dense"
    epoch: int = 0
    dense: nn.Module | None = None
    report: Report | None = None
    optimizer: Optimizer = field(init=False)
    average: Average | None = None
    patience: Patience = field(init=False)
    history: list[Record] = field(default_factory=list)
    snr: dict[str, list[float]] = field(default_factory=dict)
    steering: Steering | None = None
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modes = {name: module.training for name, module in self.model.named_modules()}
        self.source = fingerprint(self.model)
        self.patience = Patience(self.settings.patience, self.settings.margin)
        self._totals = (0, 0)  # of a phase without gates, once it has been measured
        self.equip()

    @property
    def epochs(self) -> int:
        """How many the phase has."""
        epochs: int = getattr(self.settings, f"{self.phase}_epochs")
        return epochs

    @property
    def last_phase(self) -> str:
        """The phase that ends the training."""
        return "tune" if self.settings.tune_epochs else "gate"

    @property
    def finished(self) -> bool:
        """Whether no epoch is left."""
        return self.phase == self.last_phase and self.epoch == self.epochs

    @property
    def result(self) -> nn.Module:
        """The model that is evaluated: the average where there is one."""
        module: nn.Module = self.model if self.average is None else self.average.module
        return module

    def advance(self) -> None:
        """Go to the next phase."""
        if self.phase == "dense":
            self.dense = copy.deepcopy(self.result)
            gated = attach(self.result, self.example, **self.options)
            if not self.settings.gate_epochs:
                gated.open()
            self.model, self.phase = gated, "gate"
            self.steer()
            if self.steering is not None:
                self.steering.begin(gated)
        else:
            assert isinstance(self.result, Gated)
            self.note_snr(self.result)
            self.model, self.report = prune(self.result)
            self.phase = "tune"
        self.epoch, self._totals = 0, (0, 0)
        self.equip()

    def steer(self) -> None:
        """What steers gamma in the phase with gates, where there is a budget; `fit` checked it."""
        settings = self.settings
        if (budget := Budget.parse(settings.budget)) is not None:
            steps = max(1, self.steps * settings.gate_epochs // settings.accumulate)
            self.steering = Steering(budget, settings, steps)

    def equip(self) -> None:
        """A fresh optimiser for the phase, and a fresh average."""
        settings = self.settings
        lr = settings.tune_lr if self.phase == "tune" else settings.lr
        if isinstance(self.model, Gated):
            decay = settings.weight_decay
            groups = parameter_groups(self.model, lr, settings.gate_lr, decay)
        else:
            parameters = list(self.model.parameters())
            groups = [{"params": parameters, "lr": lr, "weight_decay": settings.weight_decay}]
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
            group["base"] = group["lr"]
        groups = [g for g in groups if g["params"]]
        if not groups:
            raise ConfigError("fit: no parameter of the model requires a gradient.")
        self.optimizer = optimizer(settings, groups)
        self.average = None
        if settings.ema:
            self.average = Average(self.model, settings.ema)

    def shrink(self) -> bool:
        """Take out the units that have been dead for long enough."""
        if not isinstance(self.model, Gated) or (self.steering and self.steering.trimmed):
            return False
        dead = self.patience.dead(self.model)
        evaluated = self.result
        assert isinstance(evaluated, Gated)
        dead &= ~evaluated.kept()  # what a constraint keeps open in evaluation, stays
        if self.steering is not None and not self.steering.room(evaluated, evaluated.legal(~dead)):
            return False
        before = {s.name: s.positions.tolist() for s in self.model.sites}
        gone = self.without(dead)
        if gone:
            self.patience.follow(before, self.model)
        return gone

    def trim(self, error_of: Callable[[Gated], float], spread: float) -> None:
        """Cut to the widths that keep the budget; from here on they stay."""
        evaluated, steering = self.result, self.steering
        assert isinstance(self.model, Gated)
        assert isinstance(evaluated, Gated)
        assert steering is not None
        kept = steering.final(evaluated, error_of, spread)
        self.without(~kept)
        self.settle()

    def settle(self) -> None:
        """Keep the widths that there are now, and what went whole closed."""
        assert self.steering is not None
        for gated in (self.model, self.result):
            assert isinstance(gated, Gated)
            gated.settle(self.steering.shut)

    def without(self, dead: np.ndarray) -> bool:
        """Take units out of the model and its average; whether one has gone."""
        assert isinstance(self.model, Gated)
        kept = self.model.legal(~dead)
        self.note_snr(self.model, ~kept)
        if self.average is not None:
            average = self.average.module
            assert isinstance(average, Gated)
            shrink(average, None, ~kept)
            self.average.forget()
        return shrink(self.model, self.optimizer, ~kept)

    def note_snr(self, gated: Gated, leave: np.ndarray | None = None) -> None:
        """Write down the signal-to-noise ratios of units that leave, or of all at the end."""
        scores = gated.score()
        for site in gated.sites:
            units = site.units if leave is None else site.units[leave[site.units]]
            self.snr.setdefault(site.name, []).extend(scores[units].tolist())

    def tell(self, warning: str, on_warning: Callable[[str], None]) -> None:
        """Keep a warning and pass it on, where there is one."""
        if warning:
            self.warnings.append(warning)
            on_warning(warning)

    def put_modes_back(self) -> None:
        """Put the models that are handed out in the modes that the given model was in."""
        for model in (self.result, *([self.dense] if self.dense is not None else [])):
            inner = model.model if isinstance(model, Gated) else model
            for module in model.modules():
                module.training = self.modes[""]
            for name, module in inner.named_modules():
                module.training = self.modes.get(name, self.modes[""])

    def gamma(self, progress: float) -> float:
        """Loss per nat at a share of the phase's epochs; 0 without gates."""
        if not isinstance(self.model, Gated):
            return 0.0
        start = self.settings.gamma if self.steering is None else self.steering.gamma
        return start * rise(self.settings.gamma_rise, progress)

    def record(self, loss: float, nats: float, validation: float) -> Record:
        """Write the epoch down."""
        model, kept, gamma = self.result, {}, self.gamma(self.epoch / max(1, self.epochs))
        if isinstance(model, Gated):
            mask = model.kept()
            kept = {s.name: int(mask[s.units].sum()) for s in model.sites}
            numbers = totals(model.graph, mask)
        else:
            if self._totals == (0, 0):
                cost = measure(model, self.example)
                self._totals = cost.weights, cost.macs
            numbers = self._totals
        made = Record(self.phase, self.epoch, loss, nats, validation, kept, *numbers, gamma)
        self.history.append(made)
        return made

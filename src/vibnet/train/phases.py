"""What training is doing: the models of the phases, the optimiser, and how they are saved."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vibnet.config import Settings
from vibnet.cost import measure
from vibnet.errors import ConfigError
from vibnet.graph.prices import totals
from vibnet.graph.sites import fingerprint
from vibnet.surgery.attach import attach, parameter_groups
from vibnet.surgery.gated import Gated
from vibnet.surgery.plan import Plan
from vibnet.surgery.prune import Report, prune
from vibnet.train.shrink import Patience, shrink


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
    """

    phase: str
    epoch: int
    loss: float
    nats: float
    validation: float
    kept: dict[str, int]
    weights: int
    macs: int


@dataclass
class State:
    """Everything that changes while training."""

    settings: Settings
    example: Any
    options: Mapping[str, Any]
    model: nn.Module
    phase: str = "dense"
    epoch: int = 0
    dense: nn.Module | None = None
    report: Report | None = None
    optimizer: Optimizer = field(init=False)
    average: AveragedModel | None = None
    patience: Patience = field(init=False)
    history: list[Record] = field(default_factory=list)
    snr: dict[str, list[float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modes = {name: module.training for name, module in self.model.named_modules()}
        self.source = fingerprint(self.model)
        self.patience = Patience(self.settings.patience, self.settings.margin)
        self._totals = (0, 0)  # of a phase without gates, once it has been measured
        self._equip()

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
            self.model = attach(self.result, self.example, **self.options)
            self.phase = "gate"
        else:
            assert isinstance(self.result, Gated)
            self.note_snr(self.result)
            self.model, self.report = prune(self.result)
            self.phase = "tune"
        self.epoch, self._totals = 0, (0, 0)
        self._equip()

    def _equip(self) -> None:
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
        if settings.optimizer == "sgd":
            self.optimizer = SGD(groups, momentum=settings.momentum, fused=True)
        else:
            kind = Adam if settings.optimizer == "adam" else AdamW
            self.optimizer = kind(groups, fused=True)
        self.average = None
        if settings.ema:
            update = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]  # torch's
            self.average = AveragedModel(self.model, multi_avg_fn=update)

    def shrink(self) -> bool:
        """Take out the units that have been dead for long enough."""
        if not isinstance(self.model, Gated):
            return False
        dead = self.patience.dead(self.model)
        evaluated = self.result
        assert isinstance(evaluated, Gated)
        dead &= ~evaluated.kept()  # what a constraint keeps open in evaluation, stays
        before = {s.name: s.positions.tolist() for s in self.model.sites}
        gone = self._without(dead)
        if gone:
            self.patience.follow(before, self.model)
        return gone

    def _without(self, dead: np.ndarray) -> bool:
        assert isinstance(self.model, Gated)
        kept = self.model.legal(~dead)
        self.note_snr(self.model, ~kept)
        if self.average is not None:
            average = self.average.module
            assert isinstance(average, Gated)
            shrink(average, None, ~kept)
        return shrink(self.model, self.optimizer, ~kept)

    def note_snr(self, gated: Gated, leave: np.ndarray | None = None) -> None:
        """Write down the signal-to-noise ratios of units that leave, or of all at the end."""
        scores = gated.score()
        for site in gated.sites:
            units = site.units if leave is None else site.units[leave[site.units]]
            self.snr.setdefault(site.name, []).extend(scores[units].tolist())

    def put_modes_back(self) -> None:
        """Put the models that are handed out in the modes that the given model was in."""
        for model in (self.result, *([self.dense] if self.dense is not None else [])):
            inner = model.model if isinstance(model, Gated) else model
            for module in model.modules():
                module.training = self.modes[""]
            for name, module in inner.named_modules():
                module.training = self.modes.get(name, self.modes[""])

    def record(self, loss: float, nats: float, validation: float) -> Record:
        """Write the epoch down."""
        model, kept = self.result, {}
        if isinstance(model, Gated):
            mask = model.kept()
            kept = {s.name: int(mask[s.units].sum()) for s in model.sites}
            numbers = totals(model.graph, mask)
        else:
            if self._totals == (0, 0):
                cost = measure(model, self.example)
                self._totals = cost.weights, cost.macs
            numbers = self._totals
        made = Record(self.phase, self.epoch, loss, nats, validation, kept, *numbers)
        self.history.append(made)
        return made

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state, by name."""
        parts = {"model": self.model.state_dict()}
        if self.dense is not None:
            parts["dense"] = self.dense.state_dict()
        if self.average is not None:
            parts["average"] = self.average.state_dict()
        out = {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}
        for number, entries in self.optimizer.state_dict()["state"].items():
            out |= {f"optimizer/{number}/{k}": v for k, v in entries.items() if v is not None}
        out["random/cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            out["random/cuda"] = torch.cuda.get_rng_state()
        return out

    def body(self) -> dict[str, Any]:
        """The rest of the state, as JSON holds it."""
        positions = {}
        if isinstance(self.model, Gated):
            positions = {s.name: s.positions.tolist() for s in self.model.graph.sites}
        return {
            "settings": self._asked(),
            "phase": self.phase,
            "epoch": self.epoch,
            "positions": positions,
            "patience": self.patience.counts,
            "plan": self.report.plan.to_json() if self.report else None,
            "difference": self.report.difference if self.report else None,
            "history": [dataclasses.asdict(r) for r in self.history],
            "snr": self.snr,
            "warnings": self.warnings,
        }

    def _asked(self) -> dict[str, Any]:
        """What must be the same when a run goes on."""
        options = json.dumps(dict(self.options), sort_keys=True, default=str)
        return {**dataclasses.asdict(self.settings), "options": options, "model": self.source}

    def restore(self, tensors: dict[str, Tensor], body: dict[str, Any]) -> None:
        """Become the state that was saved. The model must be as `fit` was first given it.

        Raises:
            ConfigError: it was saved with other settings, other options or another model.
        """
        now = self._asked()
        other = {k: v for k, v in body["settings"].items() if v != now.get(k)}
        if other:
            raise ConfigError(
                f"resume: the checkpoint was made with other settings: {other}. Take those, or "
                f"another folder."
            )
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        if body["phase"] != "dense":
            self.dense = copy.deepcopy(self.model)
            self.dense.load_state_dict(parts["dense"])
            self._rebuild(body)
        self.model.load_state_dict(parts["model"])
        if self.average is not None:
            self.average.load_state_dict(parts["average"])
        self._restore_optimizer(parts.get("optimizer", {}))
        self.epoch, self.patience.counts = body["epoch"], body["patience"]
        self.history = [Record(**r) for r in body["history"]]
        self.snr, self.warnings = body["snr"], list(body["warnings"])
        torch.set_rng_state(parts["random"]["cpu"])
        if "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"])

    def _rebuild(self, body: dict[str, Any]) -> None:
        """Give the model the structure it had: gates, and what has been cut since."""
        self.phase = body["phase"]
        if self.phase == "tune":
            plan = Plan.from_json(body["plan"])
            self.model, report = prune(self.model, plan, self.example, verify=False)
            self.report = dataclasses.replace(report, difference=body["difference"])
            self._equip()
            return
        gated = attach(self.model, self.example, **self.options)
        self.model = gated
        self._equip()
        dead = np.zeros(gated.graph.total, dtype=np.bool_)
        for site in gated.graph.sites:
            dead[site.units] = ~np.isin(site.positions, body["positions"][site.name])
        if dead.any():
            self._without(dead)

    def _restore_optimizer(self, flat: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in flat.items():
            number, _, key = name.partition("/")
            state.setdefault(int(number), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

"""What a checkpoint holds of a training, and the training from what it holds."""

import copy
import dataclasses
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vibnet.errors import ConfigError
from vibnet.surgery.attach import attach
from vibnet.surgery.gated import Gated
from vibnet.surgery.plan import Plan
from vibnet.surgery.prune import prune
from vibnet.train.layout import like
from vibnet.train.phases import Record, State


def tensors(state: State) -> dict[str, Tensor]:
    """All tensors of the state, by name."""
    parts = {"model": state.model.state_dict()}
    if state.dense is not None:
        parts["dense"] = state.dense.state_dict()
    if state.average is not None:
        parts["average"] = state.average.state_dict()
    out = {f"{part}/{k}": v for part, found in parts.items() for k, v in found.items()}
    for number, entries in state.optimizer.state_dict()["state"].items():
        out |= {f"optimizer/{number}/{k}": v for k, v in entries.items() if v is not None}
    out["random/cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        out["random/cuda"] = torch.cuda.get_rng_state()
    return out


def body(state: State) -> dict[str, Any]:
    """The rest of the state, as JSON holds it."""
    positions = {}
    if isinstance(state.model, Gated):
        positions = {s.name: s.positions.tolist() for s in state.model.graph.sites}
    return {
        "settings": _asked(state),
        "phase": state.phase,
        "epoch": state.epoch,
        "positions": positions,
        "patience": state.patience.counts,
        "plan": state.report.plan.to_json() if state.report else None,
        "difference": state.report.difference if state.report else None,
        "history": [dataclasses.asdict(r) for r in state.history],
        "snr": state.snr,
        "warnings": state.warnings,
        "steering": state.steering.state() if state.steering is not None else None,
    }


def _asked(state: State) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    options = json.dumps(dict(state.options), sort_keys=True, default=str)
    return {**dataclasses.asdict(state.settings), "options": options, "model": state.source}


def restore(state: State, tensors: dict[str, Tensor], body: dict[str, Any]) -> None:
    """Become the state that was saved. The model must be as `fit` was first given it.

    Raises:
        ConfigError: it was saved with other settings, other options or another model.
    """
    now = _asked(state)
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
        state.dense = copy.deepcopy(state.model)
        state.dense.load_state_dict(parts["dense"])
        _rebuild(state, body)
    state.model.load_state_dict(parts["model"])
    if state.average is not None:
        state.average.load_state_dict(parts["average"])
    _restore_optimizer(state, parts.get("optimizer", {}))
    state.epoch, state.patience.counts = body["epoch"], body["patience"]
    state.history = [Record(**r) for r in body["history"]]
    state.snr, state.warnings = body["snr"], list(body["warnings"])
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"])


def _rebuild(state: State, body: dict[str, Any]) -> None:
    """Give the model the structure it had: gates, and what has been cut since."""
    state.phase = body["phase"]
    if state.phase == "tune":
        plan = Plan.from_json(body["plan"])
        state.model, report = prune(state.model, plan, state.example, verify=False)
        state.report = dataclasses.replace(report, difference=body["difference"])
        state.equip()
        return
    gated = attach(state.model, state.example, **state.options)
    state.model = gated
    state.equip()
    state.steer()
    dead = np.zeros(gated.graph.total, dtype=np.bool_)
    for site in gated.graph.sites:
        dead[site.units] = ~np.isin(site.positions, body["positions"][site.name])
    if dead.any():
        state.without(dead)
    if state.steering is not None:
        state.steering.restore(body["steering"])
        if state.steering.trimmed:
            state.settle()


def _restore_optimizer(state: State, flat: dict[str, Tensor]) -> None:
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        number, _, key = name.partition("/")
        entries.setdefault(int(number), {})[key] = like(value, parameters[int(number)])
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": entries, "param_groups": groups})

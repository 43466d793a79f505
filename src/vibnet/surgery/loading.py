"""Load a saved small model into the caller's own class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vibnet.errors import ArtefactError, PlanError
from vibnet.graph import checks
from vibnet.graph.sites.numbers import state as state_numbers
from vibnet.graph.sites.numbers import stated
from vibnet.graph.sites.stock import replace_in, replaceable, with_free_heads
from vibnet.graph.sites.structure import fingerprint
from vibnet.graph.trial.cut import select, state_sizes
from vibnet.layers import SelectedLinear
from vibnet.surgery import depth, pretrained
from vibnet.surgery.files import PLAN, body_of, path_of, weights_of
from vibnet.surgery.plan import Plan
from vibnet.surgery.stored import unfilled


class Named:
    """Stands for a model of the class that a folder names itself."""


NAMED = Named()


def load(folder: str | Path, model: nn.Module | Named = NAMED) -> nn.Module:
    """Put a saved small model into a fresh model of the class it was cut from.

    Args:
        folder: of a `save`.
        model: a model as it was before the cut, any weights; changed only when all checks passed.
            What it holds on the meta device comes to the CPU, all else stays where it is. A model
            of transformers need not be given: its class is made on the CPU, in evaluation mode.

    Returns:
        The same object, now small.

    Raises:
        ConfigError: no path, or no module.
        ArtefactError: files missing, truncated or altered, a model of another shape, one with
            tensors on the meta device that were not saved, or no model where none can be made.
    """
    folder = path_of("load", folder)
    if not isinstance(model, Named):
        checks.module("load", model)
    body = body_of(folder)
    try:
        Plan.from_json(json.dumps(body["plan"]))
    except PlanError as error:
        raise ArtefactError(f"load: {folder / PLAN}: {error}") from error
    model = pretrained.built(body["config"]) if isinstance(model, Named) else model
    return filled(model, body, folder, weights_of)


def filled(
    model: nn.Module,
    body: dict[str, Any],
    folder: Path,
    read: Callable[[Path, dict[str, Any]], dict[str, Tensor]],
) -> nn.Module:
    """A model as it was before a cut, made small in place: see `load`.

    Args:
        model: changed only when all checks passed.
        body: what the plan file of the folder holds.
        folder: of a save.
        read: gives the tensors of the folder.

    Raises:
        ArtefactError: another model, or other tensors.
    """
    plan = Plan.from_json(json.dumps(body["plan"]))
    attention = plan.request.attention and bool(replaceable(model))
    whole = with_free_heads(model) if attention else model
    found = fingerprint(whole)
    if found != plan.source:
        raise ArtefactError(
            f"load: {folder} was cut from another model (hash {plan.source}, this "
            f"{type(model).__name__} has {found}). Pass the model as it was before the cut."
        )
    depth.check(whole, body["constants"])
    tensors = read(folder, body)
    names = _names(whole)
    picking = {
        name: first
        for name, first in names.items()
        if isinstance(whole.get_submodule(name), SelectedLinear)
        and depth.outside({f"{name}.index": 0}, body["constants"])
    }
    selected = [n for n in body["selected"] if type(_linear(whole, n)) is nn.Linear]
    aliases: dict[str, str] = body["aliases"]
    buffers = {name for name, _ in whole.named_buffers()} & set(body["buffers"])
    expected = {
        *whole.state_dict(),
        *buffers,
        *(f"{n}.index" for n, k in names.items() if k in selected),
    }
    expected -= {f"{n}.index" for n, k in picking.items() if k not in body["selected"]}
    expected = depth.renamed(expected, body["constants"])
    if expected != {*tensors, *aliases} or not set(aliases.values()) <= set(tensors):
        raise ArtefactError(f"load: the weights in {folder} do not have the names of the model's.")
    _refuse_meta(whole, expected, body["constants"])
    _refuse_numbers(whole, body["numbers"], int)
    _refuse_numbers(whole, body["eps"], float)
    if attention:
        replace_in(model)
    depth.put(model, body["constants"])
    state = {**tensors, **{name: tensors[first] for name, first in aliases.items()}}
    for name in selected:
        layer = _linear(model, name)
        select(layer, [], body["given"].get(name, layer.in_features))
    for name in set(picking.values()):
        layer = _linear(model, name)
        if name not in body["selected"]:
            select(layer, None, layer.in_features)
        elif isinstance(layer, SelectedLinear):
            layer.given = body["given"].get(name, layer.given)
    _fill(model, state, body)
    state_numbers(model, {**body["numbers"], **body["eps"]})
    return model


def _names(model: nn.Module) -> dict[str, str]:
    """The first name of every module, by all its names."""
    first = {id(m): n for n, m in model.named_modules()}
    return {n: first[id(m)] for n, m in model.named_modules(remove_duplicate=False)}


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = dict(model.named_modules()).get(name)
    if not isinstance(module, nn.Linear):
        raise ArtefactError(f"load: {name} is a {type(module).__name__}, not a linear layer.")
    return module


def _refuse_numbers(model: nn.Module, numbers: dict[str, Any], kind: type) -> None:
    """Refuse numbers of attributes that the model does not have."""
    modules = dict(model.named_modules())
    for name in numbers:
        owner, _, attribute = name.rpartition(".")
        if type(stated(modules.get(owner, object), attribute)) is not kind:
            raise ArtefactError(
                f"load: the plan sets {name}, but this {type(model).__name__} has no number of "
                f"that kind and name. Pass the model as it was before the cut."
            )


def _refuse_meta(model: nn.Module, saved: set[str], replaced: depth.Specs) -> None:
    """Refuse tensors on the meta device that no file can fill."""
    if empty := depth.outside(dict.fromkeys(unfilled(model, saved)), replaced):
        raise ArtefactError(
            f"load: this {type(model).__name__} is on the meta device, and these tensors of it are "
            f"not saved: {', '.join(empty)}. Make the model on another device, or make them anew "
            f"first."
        )


def _fill(model: nn.Module, state: dict[str, Tensor], body: dict[str, Any]) -> None:
    done: dict[int, Any] = {}
    for prefix, owner in model.named_modules():
        for table in (owner._parameters, owner._buffers):
            for leaf, value in table.items():
                name = f"{prefix}.{leaf}" if prefix else leaf
                if value is None or name not in state:
                    continue
                if id(value) not in done:
                    new: Tensor = state[name].to("cpu" if value.is_meta else value.device)
                    if isinstance(value, nn.Parameter):
                        new = nn.Parameter(new, requires_grad=value.requires_grad)
                    done[id(value)] = new
                table[leaf] = done[id(value)]
        state_sizes(owner, f"{prefix}.weight" if prefix else "weight", set(body["depthwise"]))
        if prefix in body["widths"]:
            owner.num_features = int(body["widths"][prefix])

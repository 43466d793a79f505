"""Multipliers become part of the weights: of the readers, or of what stands in front of them."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from vibnet.errors import FoldError
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.structure import Graph
from vibnet.surgery.multiply import without_hooks


def _held(model: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a model, by all their names."""
    held: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    return held | dict(model.named_buffers(remove_duplicate=False))


def bare(model: nn.Module) -> nn.Module:
    """A copy of a model without hooks of ours."""
    return without_hooks(copy.deepcopy(model))


def fold(model: nn.Module, graph: Graph, multipliers: Tensor) -> None:
    """Multiply the columns of every reader's weight by its units' multipliers, in place.

    Exact, for a reader is linear in what it reads and its weight has no other use. Where it has
    one, the multipliers go into an affine in front that only this reader sees, or into the weight
    that writes the units. Units that close where they are written are multiplied there.

    Raises:
        FoldError: there is no such place, or only positive multipliers come through.
    """
    state = _held(model)
    late = torch.zeros(graph.total, dtype=torch.bool)
    late[torch.as_tensor(graph.late)] = True
    early = torch.where(late, 1.0, multipliers)
    for reader in graph.readers:
        units = torch.as_tensor(reader.units)
        scale = torch.where(units < 0, 1.0, early[units.clamp(min=0)])
        if bool((scale == 1).all()):
            continue
        if reader.foldable:
            _scale(state[reader.parameter], reader.dim, reader.groups, scale)
            continue
        if reader.detour is None:
            raise FoldError(
                f"{reader.parameter} is used in another way too, so no multiplier fits into it."
            )
        if reader.detour.positive and bool((scale < 0).any()):
            raise FoldError(
                f"{reader.parameter} is used in another way too, and {reader.detour.positive} lets "
                f"only positive multipliers through to it, but {int((scale < 0).sum())} of "
                f"{len(scale)} are negative. Leave the site out with exclude, or keep its means "
                f"positive."
            )
        for name, dim in reader.detour.scaled:
            units = torch.as_tensor(graph.parameters[name][dim])
            scale = torch.where(units < 0, 1.0, early[units.clamp(min=0)])
            _scale(state[name], dim, 1, scale)
    for source in graph.sources:
        units = torch.as_tensor(source.units)
        scale = torch.where(units < 0, 1.0, torch.where(late, multipliers, 1.0)[units.clamp(min=0)])
        _scale(state[source.parameter], source.dim, 1, scale)
    for norm in (n for n in graph.norms if n.inverse):
        units = torch.as_tensor(norm.units)
        scale = torch.where(units < 0, 1.0, multipliers[units.clamp(min=0)])
        scale = torch.where(scale == 0, 1.0, scale)  # closed: there is nothing to take back
        with torch.no_grad():
            weight = state[norm.weight]
            weight.copy_(norm.divided(weight, scale.to(weight.device)))


def _scale(weight: Tensor, dim: int, groups: int, scale: Tensor) -> None:
    with torch.no_grad():
        weight.copy_((weight.double() * _columns(weight, dim, groups, scale)).to(weight))


def _columns(weight: Tensor, dim: int, groups: int, scale: Tensor) -> Tensor:
    scale = scale.to(weight.device)
    if groups > 1:
        rows = scale.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
        return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    shape = [1] * weight.ndim
    shape[dim] = -1
    return scale.reshape(shape)


def closed(model: nn.Module, graph: Graph, kept: Mask) -> nn.Module:
    """A copy of a plain model of the same size that ignores the units that go."""
    model = bare(model)
    state = _held(model)
    for name, dim, groups, stay in _openings(graph, kept):
        with torch.no_grad():
            weight = state[name]
            weight.mul_(_columns(weight, dim, groups, stay).to(weight))
    return model


def shut(value: Tensor, name: str, graph: Graph, kept: Mask) -> Tensor:
    """A tensor of that name as it is in the model that ignores the units that go: see `closed`."""
    for parameter, dim, groups, stay in _openings(graph, kept):
        if parameter == name and not bool(stay.all()):
            value = value * _columns(value, dim, groups, stay).to(value)
    return value


def _openings(graph: Graph, kept: Mask) -> Iterator[tuple[str, int, int, Tensor]]:
    """Where units that go close: parameter, dimension, groups, and 1 for every one that stays."""
    late = np.zeros(graph.total, dtype=np.bool_)
    late[graph.late] = True
    closing = [(r.parameter, r.dim, r.groups, r.units, kept | late) for r in graph.readers]
    closing += [(s.parameter, s.dim, 1, s.units, kept | ~late) for s in graph.sources]
    for parameter, dim, groups, units, stays in closing:
        stay = np.where(units < 0, True, stays[units])
        yield parameter, dim, groups, torch.as_tensor(stay).double()

"""Take units out of the parameters and buffers of a model, and set the sizes its layers state."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import is_parametrized

from vibnet.errors import PlanError
from vibnet.graph.capture.shadow import as_parameter
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites import following
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.numbers import counts, state
from vibnet.graph.sites.structure import Graph
from vibnet.layers import SelectedLinear

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
Take = Callable[[Tensor, list[Array]], Tensor]
Indices = list[Array]


def positions(graph: Graph, name: str, kept: Mask) -> list[Array]:
    """The positions that stay in every dimension of a parameter or buffer."""
    return [
        np.flatnonzero(np.where(units < 0, True, kept[units])) for units in graph.parameters[name]
    ]


def take(value: Tensor, indices: list[Array]) -> Tensor:
    """A tensor with only these positions of every dimension (a copy)."""
    out = value.detach()
    for dim, index in enumerate(indices):
        if len(index) != value.shape[dim]:
            out = out.index_select(dim, torch.as_tensor(index, device=value.device))
    out = out.clone() if out.data_ptr() == value.data_ptr() else out
    return laid_out(out, layout(value))


def layout(value: Tensor) -> torch.memory_format:
    """Whether channels come last in memory; a model that is laid out so stays so.

    Of one channel the strides tell: torch calls such a tensor contiguous either way, but chooses
    the kernels of a convolution by its strides.
    """
    last = LAST.get(value.ndim)
    if last is None or not value.is_contiguous(memory_format=last):
        return torch.contiguous_format
    channels = value.shape[1]
    whole = value.stride(1) == 1 and value.stride(-1) == channels
    return last if whole else torch.contiguous_format


def laid_out(value: Tensor, wanted: torch.memory_format) -> Tensor:
    """The tensor in a layout; itself where it lies so, a tensor of one channel by its strides."""
    if value.ndim not in LAST:
        return value.contiguous()
    if layout(value) is wanted and value.is_contiguous(memory_format=wanted):
        return value
    return torch.empty_like(value, memory_format=wanted).copy_(value)


def shape_only(value: Tensor, indices: list[Array]) -> Tensor:
    """An empty tensor of the shape that `take` would give."""
    shape = [len(index) for index in indices]
    if not isinstance(value, FakeTensor):
        return value.detach().new_empty(shape)
    # as new_empty, but far faster
    last = layout(value)
    meta = torch.empty(shape, dtype=value.dtype, device="meta", memory_format=last)
    return FakeTensor(value.fake_mode, meta, value.device)


def _grouped(
    value: Tensor, indices: list[Array], units: Array, groups: int, kept: Mask, how: Take
) -> Tensor:
    """A grouped weight: the columns that stay differ from group to group."""
    stay = np.where(units < 0, True, kept[units]).reshape(groups, -1)
    rows = value.shape[0] // groups
    parts = []
    for group in range(groups):
        mine = indices[0][indices[0] // rows == group]
        parts.append(how(value, [mine, np.flatnonzero(stay[group]), *indices[2:]]))
    return torch.cat(parts)


def cut(model: nn.Module, graph: Graph, kept: Mask, how: Take = take) -> dict[str, list[list[int]]]:
    """Cut a copy of a model in place.

    Args:
        model: a copy made for this; its parameters are replaced.
        graph: what the model's labels say.
        kept: bool, one per unit of the graph.
        how: `take`, or `shape_only` for a trial.

    Returns:
        The positions kept in every dimension of every tensor that changed.

    Raises:
        PlanError: a norm's eps, or the numbers in a buffer, are others than when the model was
            looked at.
    """
    following.check(model, graph.norms)
    done: dict[int, Tensor] = {}
    record: dict[str, list[list[int]]] = {}
    for prefix, owner in model.named_modules():
        for table in (owner._parameters, owner._buffers):
            for leaf, value in table.items():
                if value is None:
                    continue
                name = f"{prefix}.{leaf}" if prefix else leaf
                if id(value) not in done:
                    done[id(value)] = _cut_one(value, name, graph, kept, how, record)
                table[leaf] = done[id(value)]
        state_sizes(owner, f"{prefix}.weight" if prefix else "weight", graph.depthwise)
        if prefix in graph.widths and isinstance(owner, _NormBase):
            units = graph.widths[prefix]
            owner.num_features = int(np.where(units < 0, True, kept[units]).sum())
    for nested in graph.nested:
        present = np.where(nested.parents < 0, True, kept[nested.parents])
        stay = np.where(nested.units < 0, False, kept[nested.units])[present]
        owner = model.get_submodule(nested.module)
        if isinstance(owner, nn.Linear):
            select(owner, None if stay.all() else np.flatnonzero(stay), len(stay))
    state(model, {**counts(graph.numbers, kept), **following.eps_of(graph.norms, kept)})
    return record


def select(linear: nn.Linear, features: Sequence[int] | Array | None, given: int) -> None:
    """Make a linear layer read only some of the features it is given, or all, in place."""
    if features is None:
        if isinstance(linear, SelectedLinear):
            linear.plain()
        return
    weight = linear.weight
    index = torch.as_tensor(features, dtype=torch.int64, device=weight.device)
    SelectedLinear.of(linear, index, given)


def _cut_one(
    value: Tensor,
    name: str,
    graph: Graph,
    kept: Mask,
    how: Take,
    record: dict[str, list[list[int]]],
) -> Tensor:
    new = sliced(value, name, graph, kept, how)
    if new is value:
        return value
    record[name] = [i.tolist() for i in positions(graph, name, kept)]
    if how is take:
        new = weighed(new, name, graph, kept)
    if isinstance(value, nn.Parameter):
        return as_parameter(new, value.requires_grad)
    return new


def weighed(new: Tensor, name: str, graph: Graph, kept: Mask) -> Tensor:
    """What stays of a parameter as it is in the small model: weights of norms are scaled."""
    norm = following.by_weight(graph.norms).get(name)
    return new if norm is None else norm.scaled(new, kept)


def remaining(value: Tensor, name: str, graph: Graph, kept: Mask) -> Tensor:
    """What stays of a tensor of that name, as it is in the small model."""
    left = sliced(value, name, graph, kept)
    return left if left is value else weighed(left, name, graph, kept).contiguous()


def sliced(value: Tensor, name: str, graph: Graph, kept: Mask, how: Take = take) -> Tensor:
    """What stays of a tensor that is laid out like the parameter or buffer of that name.

    The tensor itself where all of it stays.
    """
    if name not in graph.parameters:
        return value
    indices = positions(graph, name, kept)
    picked = graph.remaps.get(name)
    if picked is not None and not np.where(picked < 0, True, kept[picked]).all():
        return how(value, indices) if how is shape_only else _renumbered(value, name, graph, kept)
    grouped = graph.within_group.get(name)
    whole = all(len(i) == n for i, n in zip(indices, value.shape, strict=True))
    if whole and (grouped is None or np.where(grouped[0] < 0, True, kept[grouped[0]]).all()):
        return value
    return _grouped(value, indices, *grouped, kept, how) if grouped else how(value, indices)


def renumber(values: Array, units: Array, kept: Mask) -> Array:
    """Numbers of positions that hold these units, as they are when only kept ones stay."""
    stay = np.where(units < 0, True, kept[units])
    numbers: Array = (np.cumsum(stay) - 1)[values[stay[values]]]
    return numbers


def _renumbered(value: Tensor, name: str, graph: Graph, kept: Mask) -> Tensor:
    values, units = value.cpu().numpy(), graph.remaps[name]
    if not np.array_equal(units[values], graph.parameters[name][0]):
        raise PlanError(
            f"the numbers in {name} are others than when the model was looked at, so they cannot "
            f"be cut. Attach again, or leave them as they were."
        )
    return torch.as_tensor(renumber(values, units, kept)).to(value)


def _weight(module: nn.Module) -> object:
    """What a layer's sizes are told by; a parametrisation is not run for it, for it may write."""
    if not is_parametrized(module, "weight"):
        return getattr(module, "weight", None)
    parts: Any = module.parametrizations
    return None if parts["weight"].unsafe else getattr(parts["weight"], "original", None)


def state_sizes(module: nn.Module, name: str, depthwise: set[str]) -> None:
    """Make the sizes that a standard layer states those of its weights."""
    if isinstance(module, nn.RNNBase):
        first = module.weight_ih_l0
        if isinstance(first, Tensor):
            module.input_size = first.shape[1]
        return
    weight = _weight(module)
    if not isinstance(weight, Tensor):
        weight = getattr(module, "running_mean", None)
    if not isinstance(weight, Tensor):
        return
    n = weight.shape
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = n
    elif isinstance(module, _ConvNd):
        if name in depthwise and module.groups > 1:
            multiplier = 1 if module.transposed else module.out_channels // module.in_channels
            module.groups = n[0] // multiplier
        if isinstance(module, _ConvTransposeNd):
            module.in_channels, module.out_channels = n[0], n[1] * module.groups
        else:
            module.out_channels, module.in_channels = n[0], n[1] * module.groups
    elif isinstance(module, _NormBase):
        module.num_features = n[0]
    elif isinstance(module, nn.GroupNorm):
        if module.num_groups > 1:
            module.num_groups = n[0] // (module.num_channels // module.num_groups)
        module.num_channels = n[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        module.normalized_shape = tuple(n)
    elif isinstance(module, nn.PReLU):
        module.num_parameters = n[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = n

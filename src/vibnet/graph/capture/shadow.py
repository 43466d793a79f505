"""A model's structure without its numbers: parameters and buffers that have no storage."""

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


def shadow(model: nn.Module, mode: FakeTensorMode | None) -> nn.Module:
    """A structural copy of a model whose parameters and buffers have no storage.

    Without a mode a plain deep copy, for models whose path depends on data. What is on the meta
    device passes for a tensor on the CPU.
    """
    memo: dict[int, Any] = {}
    if mode is not None:
        for owner in model.modules():
            for value in (*owner._parameters.values(), *owner._buffers.values()):
                if value is None or id(value) in memo:
                    continue
                memo[id(value)] = stand_in(value, mode)
    return copied(model, memo)


def copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy; what is empty, as most tables of hooks, is made here in a tenth of the time."""
    for owner in model.modules():
        for value in vars(owner).values():
            if empty(value):
                memo.setdefault(id(value), type(value)())
    return copy.deepcopy(model, memo)


def empty(value: object) -> bool:
    """Whether an attribute of a module holds nothing."""
    return type(value) in (OrderedDict, dict, set) and not value


def stand_in(value: Tensor, mode: FakeTensorMode) -> Tensor:
    """A tensor without storage in the place of a parameter, a buffer or an input."""
    usual = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
    if not usual or value.is_quantized:
        fake: Tensor = mode.from_tensor(value.detach())
    else:  # what from_tensor comes to for such a tensor, in an eighth of its time
        shape, stride = value.shape, value.stride()
        meta = torch.empty_strided(shape, stride, dtype=value.dtype, device="meta")
        fake = FakeTensor(mode, meta, torch.device("cpu") if value.is_meta else value.device)
    return as_parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake


def as_parameter(value: Tensor, requires_grad: bool) -> Tensor:
    """A tensor made just now, as a parameter."""
    if not isinstance(value, FakeTensor):
        return nn.Parameter(value, requires_grad)
    value.requires_grad_(requires_grad)
    value._is_param = True  # what nn.Parameter does, without its detached copy
    return value

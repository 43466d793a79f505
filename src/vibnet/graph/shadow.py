"""A model's structure without its numbers: parameters and buffers that have no storage."""

import copy
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

ATOMS = {bool, int, float, str, type(None)}


def shadow(model: nn.Module, mode: FakeTensorMode | None) -> nn.Module:
    """A structural copy of a model whose parameters and buffers have no storage.

    Without a mode a plain deep copy, for models whose path depends on data.
    """
    memo: dict[int, Any] = {}
    if mode is not None:
        for owner in model.modules():
            for value in (*owner._parameters.values(), *owner._buffers.values()):
                if value is None or id(value) in memo:
                    continue
                memo[id(value)] = _stand_in(value, mode)
    return structure(model, memo)


def structure(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy(model, memo)` gives, in a quarter of its time for ordinary modules.

    Args:
        model: any module.
        memo: by id, what stands in the copy for objects that are not copied.
    """
    plain = [m for m in model.modules() if _copies_plainly(type(m))]
    for module in plain:
        memo[id(module)] = module.__class__.__new__(module.__class__)
    for module in plain:
        state = memo[id(module)].__dict__
        for name, value in module.__dict__.items():
            if type(value) in ATOMS:
                state[name] = value
            elif type(value) in (dict, OrderedDict):
                state[name] = type(value)(
                    (k, v if type(v) in ATOMS else copy.deepcopy(v, memo)) for k, v in value.items()
                )
            else:
                state[name] = copy.deepcopy(value, memo)
    return copy.deepcopy(model, memo)


def _copies_plainly(kind: type) -> bool:
    """Whether a deep copy of a module is a copy of its attributes and nothing else."""
    owners = {
        name: next((c for c in kind.__mro__ if name in c.__dict__), object)
        for name in ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__")
    }
    restores = owners.pop("__setstate__").__module__  # torch's add what old files lack
    return set(owners.values()) == {object} and restores.split(".")[0] in ("torch", "builtins")


def _stand_in(value: Tensor, mode: FakeTensorMode) -> Tensor:
    """A tensor without storage in the place of a parameter or buffer."""
    usual = type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided
    if not usual or value.is_quantized:
        fake: Tensor = mode.from_tensor(value.detach())
    else:  # what from_tensor comes to for such a tensor, in an eighth of its time
        shape, stride = value.shape, value.stride()
        meta = torch.empty_strided(shape, stride, dtype=value.dtype, device="meta")
        fake = FakeTensor(mode, meta, value.device)
    return as_parameter(fake, value.requires_grad) if isinstance(value, nn.Parameter) else fake


def as_parameter(value: Tensor, requires_grad: bool) -> Tensor:
    """A tensor made just now, as a parameter."""
    if not isinstance(value, FakeTensor):
        return nn.Parameter(value, requires_grad)
    value.requires_grad_(requires_grad)
    value._is_param = True  # what nn.Parameter does, without its detached copy
    return value

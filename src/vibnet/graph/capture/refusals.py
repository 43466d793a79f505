"""Models of which no forward can be seen, and what to do about them."""

import copy

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from vibnet.graph.capture.held import held_by


def in_the_way(model: nn.Module) -> str:
    """Why no forward of a model can be seen, whatever it is called with; empty if nothing is."""
    modules = dict(model.named_modules())
    if found := computed(model):
        return (
            f"holds tensors that are computed from its parameters before a forward, so it cannot "
            f"be copied: {', '.join(found)}. Make them parameters again "
            f"(torch.nn.utils.remove_weight_norm, torch.nn.utils.prune.remove), or compute them "
            f"with torch.nn.utils.parametrizations."
        )
    if found := [
        n or "itself" for n, m in modules.items() if isinstance(m, torch.jit.ScriptModule)
    ]:
        return (
            f"has scripted modules, whose calls cannot be seen ({', '.join(found)}). Put the "
            f"modules there that they were scripted from."
        )
    if found := [n for n, p in model.named_parameters() if is_lazy(p)]:
        return f"has parameters without a shape yet ({', '.join(found)}). Call it once before."
    try:
        copy.deepcopy(model)
    except Exception as error:
        return f"cannot be copied: {error}. Keep what cannot be copied out of its attributes."
    return ""


def computed(model: nn.Module) -> list[str]:
    """Tensors with a history that modules hold beside their parameters and buffers."""
    held = ((n, k, v) for n, m in model.named_modules() for k, v in held_by(m))
    names = (f"{n}.{k}".lstrip(".") for n, k, v in held if not v.is_leaf)
    return list(dict.fromkeys(names))

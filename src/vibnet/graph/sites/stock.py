"""Layers of torch that cannot hold fewer units: why they stay, and what can replace attentions.

`nn.MultiheadAttention` wants its width to be the number of heads times their size; torchvision's
shifted-window attention divides the width of its input by the number of heads.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from vibnet.errors import CaptureError, NoSitesError
from vibnet.graph.capture.trace import Trace
from vibnet.graph.sites.structure import Graph, Request
from vibnet.layers import Attention, WindowAttention

WINDOWS = {"ShiftedWindowAttention", "ShiftedWindowAttentionV2"}


def _is_window(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__name__ in WINDOWS and kind.__module__.startswith("torchvision.")


def _found(model: nn.Module) -> dict[str, nn.Module]:
    """The stock attentions of a model, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.MultiheadAttention or _is_window(module)
    }


def _odd(module: nn.Module) -> str:
    """What an attention does that its replacement does not, empty if nothing."""
    if not isinstance(module, nn.MultiheadAttention):
        return ""
    if module.bias_k is not None or module.add_zero_attn:
        return "it adds a key and a value of its own (add_bias_kv or add_zero_attn)"
    inner = module.out_proj
    if any(v for k, v in vars(inner).items() if k.endswith("hooks")) or is_parametrized(inner):
        return "its out_proj has hooks or parametrisations, which the stock module never calls"
    return ""


def _odds(model: nn.Module, found: dict[str, nn.Module]) -> dict[str, str]:
    """Why stock attentions cannot be replaced, by name; those that can are missing."""
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for value in module._parameters.values():
            owners.setdefault(id(value), set()).add(id(module))
    out = {}
    for name, module in found.items():
        odd = _odd(module)
        if isinstance(module, nn.MultiheadAttention):
            if any(len(owners[id(p)]) > 1 for p in module._parameters.values() if p is not None):
                odd = odd or "its weights are those of another layer too"
            if not name:
                odd = odd or "it is the model itself; put it into a module"
        if odd:
            out[name] = odd
    return out


def explained(graph: Graph, model: nn.Module) -> Graph:
    """A graph whose pinned units of stock layers say why, and what a person can do."""
    found = _found(model)
    odds = _odds(model, found)
    loops = {name: m for name, m in model.named_modules() if isinstance(m, nn.RNNBase)}
    if not found and not loops:
        return graph
    pinned = []
    for site in graph.pinned:
        if own := next((w for w in site.writers if w in loops), ""):
            why = (
                f"{own} is a layer of type {type(loops[own]).__name__}: its hidden units feed back "
                f"into themselves, so one that is closed where it is read lives on in the next "
                f"step. What it reads can be cut; for a narrower one, make it narrower before "
                f"training"
            )
            pinned.append(replace(site, reason=why))
            continue
        owners = (w.removesuffix(".qkv") for w in site.writers)
        if owner := next((name for name in owners if name in found), ""):
            kind = type(found[owner]).__name__
            odd = odds.get(owner, "")
            what = f"which is not possible here: {odd}" if odd else "as replace_attention=True does"
            why = (
                f"{owner} is a {kind}, which cannot hold fewer heads than its width has for their "
                f"size. Put an attention that can in its place, {what}"
            )
            pinned.append(replace(site, reason=why))
        else:
            pinned.append(site)
    return replace(graph, pinned=pinned)


def refuse_nested(model: nn.Module, traces: Sequence[Trace]) -> None:
    """Refuse torch's encoder where it packs padded tokens in evaluation: no gate fits those.

    Raises:
        CaptureError: it does so.
    """
    for call in (call for trace in traces for call in trace.modules):
        encoder = model.get_submodule(call.name)
        mask = call.named.get("src_key_padding_mask", (*call.inputs, None, None, None)[2])
        if not isinstance(encoder, nn.TransformerEncoder) or mask is None:
            continue
        if encoder.use_nested_tensor:
            raise CaptureError(
                f"{call.name or 'the model'} packs padded tokens into nested tensors in "
                f"evaluation, which cannot be followed. Build it with enable_nested_tensor=False."
            )


def replaceable(model: nn.Module) -> list[str]:
    """The names of stock attentions that can be replaced."""
    found = _found(model)
    odds = _odds(model, found)
    return [name for name in found if name not in odds]


def with_free_heads(model: nn.Module) -> nn.Module:
    """A copy of a model with every stock attention that can be replaced by one of any heads.

    It shares the parameters and buffers that stay as they are. A model in which that has been done
    already is taken as it is.

    Raises:
        NoSitesError: it has none.
    """
    done = any(isinstance(m, Attention | WindowAttention) for m in model.modules())
    if not replaceable(model) and not done:
        odd = [f"{name or 'it'}: {why}" for name, why in _odds(model, _found(model)).items()]
        raise NoSitesError(
            f"replace_attention: {type(model).__name__} holds no nn.MultiheadAttention and no "
            f"shifted-window attention of torchvision that can be replaced "
            f"({'; '.join(odd) or 'it has neither'}). Leave it out."
        )
    shared: dict[int, Any] = {id(v): v for v in (*model.parameters(), *model.buffers())}
    copied = copy.deepcopy(model, shared)
    replace_in(copied)
    return copied


def ready(model: nn.Module, request: Request) -> nn.Module:
    """The model that a request is about: itself, or a copy with its attentions replaced."""
    return with_free_heads(model) if request.attention else model


def replace_in(model: nn.Module) -> None:
    """Replace the stock attentions of a model in place."""
    stock = [model.get_submodule(name) for name in replaceable(model)]
    these, done = {id(module) for module in stock}, dict[int, nn.Module]()
    for owner in list(model.modules()):
        for leaf, child in list(owner._modules.items()):
            if id(child) in these and type(child) is nn.MultiheadAttention:
                if id(child) not in done:
                    done[id(child)] = Attention.of(child)
                owner._modules[leaf] = done[id(child)]
    for module in stock:
        if _is_window(module):
            WindowAttention.of(module)

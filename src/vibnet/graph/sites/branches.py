"""Sites that may go whole: what reads them becomes a constant, and the outputs still depend on
the inputs, as a residual branch does not keep a network from answering."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.conv import _ConvNd

from vibnet.graph.capture.trace import Trace
from vibnet.graph.sites.constraints import NOTHING_NESTED, EqualBlocks, Mask, Nesting, legal
from vibnet.graph.sites.paths import NO_BRANCHES, Branches, paths
from vibnet.graph.sites.structure import Graph, Site
from vibnet.layers import SelectedLinear

SAME = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, SelectedLinear  # and what computes as they do
TOLD = {  # what a class may say of itself and compute as before
    *("__init__", "__module__", "__doc__", "__annotations__", "__qualname__", "__constants__"),
    *("__repr__", "extra_repr", "reset_parameters", "__firstlineno__", "__static_attributes__"),
    *("__setstate__", "__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__"),
}
READERS = nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer


def empty(sites: Sequence[Site], kept: Mask) -> list[str]:
    """The sites of which nothing is kept."""
    return [site.name for site in sites if site.size and not kept[site.units].any()]


def held(sites: Sequence[Site], kept: Mask) -> Mask:
    """What weights hold: the units that stay, and one of every site of which none does.

    That one is multiplied by zero, until its reader is replaced.
    """
    out = kept.copy()
    for site in sites:
        if site.size and not kept[site.units].any():
            out[site.units[0]] = True
    return out


def opened(
    branches: Branches,
    sites: Sequence[Site],
    kept: Mask,
    score: npt.NDArray[np.float64],
) -> Mask:
    """The units that stay when some sites may be empty: as few as the outputs need.

    Where the outputs would not depend on the inputs any more, sites get their best unit back, the
    best first.
    """
    kept = kept.copy()
    named = {site.name: site for site in sites}
    best = {
        name: named[name].units[np.argmax(score[named[name].units])] for name in empty(sites, kept)
    }
    order = sorted(best, key=lambda name: (name not in branches.readers, score[best[name]]))
    while order and (order[-1] not in branches.readers or not branches.answers(order)):
        kept[best[order.pop()]] = True
    return kept


def fewest(
    graph: Graph,
    wanted: Mask,
    score: npt.NDArray[np.float64],
    multiple: int = 1,
    inner: Nesting = NOTHING_NESTED,
) -> Mask:
    """The units that stay when some are wanted: see `legal`; sites may be empty."""
    gone: set[str] = set()
    if graph.branches.readers:
        wanted = unused(graph, opened(graph.branches, graph.sites, wanted, score))
        gone = set(empty(graph.sites, wanted))
    floored = [site.units for site in graph.sites if site.name not in gone]
    return legal(wanted, score, floored, binding(graph, gone), 1, multiple, inner)


def binding(graph: Graph, gone: Collection[str]) -> list[EqualBlocks]:
    """The constraints that still bind units when some sites are empty."""
    lost = np.zeros(graph.total, dtype=np.bool_)
    for site in graph.sites:
        lost[site.units] = site.name in gone
    return [block for block in graph.blocks if not lost[block.units].all()]


def unused(graph: Graph, kept: Mask) -> Mask:
    """The units that stay without those that only layers read which make nothing that stays."""
    kept, readers = kept.copy(), graph.branches.readers
    while gone := set(feeding(graph, kept)):
        found = [
            site.units
            for site in graph.sites
            if site.name in readers
            and kept[site.units].any()
            and gone.issuperset(readers[site.name])
        ]
        if not found:
            break
        kept[np.concatenate(found)] = False
    return kept


def feeding(graph: Graph, kept: Mask) -> list[str]:
    """The modules that make or carry units of empty sites and no others."""
    gone = np.zeros(graph.total + 1, dtype=np.bool_)  # the last: no unit
    for name in empty(graph.sites, kept):
        gone[next(site.units for site in graph.sites if site.name == name)] = True
    found = (
        name.rpartition(".")[0]
        for name, dims in graph.parameters.items()
        if any(len(units) and gone[units].all() for units in dims)
    )
    return sorted(set(found))


def find(graph: Graph, trace: Trace, model: nn.Module) -> Branches:
    """The sites that may go whole, by a forward in evaluation mode.

    All columns of their readers must be theirs, and no constraint may bind them to others.
    """
    found = paths(trace)
    if not found.outputs:
        return NO_BRANCHES
    bound = _bound(graph)
    readers = {
        site.name: layers
        for site in graph.sites
        if not (site.ungated or site.inexact or bound[site.units].any())
        and (layers := _readers(graph, site.units, model))
    }
    every = replace(found, readers=readers)
    return replace(found, readers={k: v for k, v in readers.items() if every.answers([k])})


def _bound(graph: Graph) -> Mask:
    """The units that others are bound to."""
    out = np.zeros(graph.total + 1, dtype=np.bool_)
    for units in (
        *(block.units for block in graph.blocks if not _repeats(block, graph.sites)),
        *(nested.units for nested in graph.nested),
        *(nested.parents for nested in graph.nested),
        graph.late,
    ):
        out[units] = True
    return out[:-1]


def _repeats(block: EqualBlocks, sites: Sequence[Site]) -> bool:
    """Whether every part of a block holds all units of one site, so that none binds another."""
    parts = np.sort(block.units.reshape(block.blocks, -1), axis=1)
    alike = block.blocks > 1 and bool((parts == parts[0]).all())
    return alike and any(np.array_equal(parts[0], np.sort(site.units)) for site in sites)


def _readers(graph: Graph, units: npt.NDArray[np.int64], model: nn.Module) -> tuple[str, ...]:
    """The layers that read units and nothing else; none where anything else reads them."""
    names = []
    modules = dict(model.named_modules())
    tied, looked_at = several_names(model), _looked_at(model)
    for reader in graph.readers:
        mine = np.isin(reader.units, units)
        if not mine.any():
            continue
        name = reader.parameter.rpartition(".")[0]
        module = modules.get(name)
        if not (mine.all() and reader.foldable) or module is None:
            return ()
        if name in looked_at or reader.parameter in tied:
            return ()
        if not stock(module) or padded(module) or heard(module):
            return ()
        names.append(name)
    return tuple(names)


def several_names(model: nn.Module) -> set[str]:
    """The names of parameters that several modules hold, or one module twice."""
    places: dict[int, set[tuple[int, str]]] = {}
    names: dict[int, list[str]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for leaf, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), set()).add((id(module), leaf))
                names.setdefault(id(parameter), []).append(f"{prefix}.{leaf}" if prefix else leaf)
    return {name for key, found in names.items() if len(places[key]) > 1 for name in found}


def stock(module: nn.Module) -> bool:
    """Whether a layer computes as a linear layer or convolution of torch, ours, or a Conv1D."""
    conv1d = type(module).__name__ == "Conv1D" and getattr(module, "nf", None) is not None
    return (conv1d and _unpatched(module)) or any(computes_as(module, kind) for kind in SAME)


def computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module computes as a stock class: neither its classes nor itself change how."""
    if not isinstance(module, kind):
        return False
    own = type(module).__mro__[: type(module).__mro__.index(kind)]
    return _unpatched(module) and not any(hasattr(kind, n) for c in own for n in {*vars(c)} - TOLD)


def _unpatched(module: nn.Module) -> bool:
    """Whether a module has no methods put on it that its class has."""
    return not any(callable(x) and hasattr(type(module), n) for n, x in vars(module).items())


def heard(module: nn.Module) -> bool:
    """Whether somebody has hooks on a module."""
    hooks = module._forward_hooks, module._forward_pre_hooks
    return any((*hooks, module._backward_hooks, module._backward_pre_hooks))


def _looked_at(model: nn.Module) -> set[str]:
    """The layers whose weights a stock module reads past them."""
    return {
        f"{name}.{leaf}" if name else leaf
        for name, module in model.named_modules()
        if isinstance(module, READERS)
        for leaf, _ in module.named_modules()
        if leaf
    }


def padded(module: nn.Module) -> bool:
    """Whether a convolution's padding is a word, whose size follows from others, or fails on small
    inputs, which a constant would answer."""
    if not isinstance(module, _ConvNd):
        return False
    return isinstance(module.padding, str) or module.padding_mode == "reflect"

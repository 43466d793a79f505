"""Sites that may go whole: what reads them becomes a constant, and the outputs still depend on
the inputs, as a residual branch does not keep a network from answering."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.nn.modules.conv import _ConvNd

from vibnet.graph.capture.trace import Trace
from vibnet.graph.sites.constraints import NOTHING_NESTED, Mask, Nesting, legal
from vibnet.graph.sites.paths import NO_BRANCHES, Branches, paths
from vibnet.graph.sites.structure import Graph, Site

SAME = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d  # and what computes as they do
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
        wanted = opened(graph.branches, graph.sites, wanted, score)
        gone = set(empty(graph.sites, wanted))
    floored = [site.units for site in graph.sites if site.name not in gone]
    return legal(wanted, score, floored, graph.blocks, 1, multiple, inner)


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
        *(block.units for block in graph.blocks),
        *(nested.units for nested in graph.nested),
        *(nested.parents for nested in graph.nested),
        graph.late,
    ):
        out[units] = True
    return out[:-1]


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
    """The names of parameters that have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for found in names.values() if len(found) > 1 for name in found}


def stock(module: nn.Module) -> bool:
    """Whether a layer computes as torch's linear layer or convolution, or transformers' Conv1D."""
    conv1d = type(module).__name__ == "Conv1D" and getattr(module, "nf", None) is not None
    return conv1d or any(type(module).forward is kind.forward for kind in SAME)


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
    """Whether a convolution's padding is a word, whose size follows from others."""
    return isinstance(module, _ConvNd) and isinstance(module.padding, str)

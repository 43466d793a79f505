"""Sites that may go whole: what reads them becomes a constant, and the outputs still depend on
the inputs, as a residual branch does not keep a network from answering."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from vibnet.graph.capture.trace import Trace
from vibnet.graph.sites.constraints import Mask

SAME = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d  # and what computes as they do


@dataclass(frozen=True)
class Step:
    """A call: the tensors that it is given and those that it makes, and its module."""

    given: tuple[int, ...]
    made: tuple[int, ...]
    module: str


@dataclass(frozen=True)
class Branches:
    """The sites that may lose all their units.

    Attributes:
        readers: the layers that read them, by site.
        steps: what a forward does.
        inputs: its tensors.
        outputs: its tensors that depend on the inputs.
    """

    readers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()

    def layers(self, sites: Collection[str]) -> tuple[str, ...]:
        """The layers that become constants when these sites are empty."""
        return tuple(dict.fromkeys(r for site in sites for r in self.readers[site]))

    def reached(self, empty: Collection[str]) -> set[int]:
        """The tensors that depend on an input when sites have no unit left."""
        constant = set(self.layers(empty))
        found = set(self.inputs)
        for step in self.steps:
            if step.module not in constant and not found.isdisjoint(step.given):
                found.update(step.made)
        return found

    def answers(self, empty: Collection[str]) -> bool:
        """Whether every output still depends on an input when sites have no unit left."""
        return self.outputs <= self.reached(empty)


NO_BRANCHES = Branches()


def empty(sites: Sequence[Any], kept: Mask) -> list[str]:
    """The sites of which nothing is kept."""
    return [site.name for site in sites if site.size and not kept[site.units].any()]


def held(sites: Sequence[Any], kept: Mask) -> Mask:
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
    sites: Sequence[Any],
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


def find(graph: Any, trace: Trace, model: nn.Module) -> Branches:
    """The sites that may go whole, by a forward in evaluation mode.

    All columns of their readers must be theirs, and no constraint may bind them to others.
    """
    steps = tuple(
        Step(tuple(map(id, call.given)), tuple(map(id, call.results)), call.module)
        for call in trace.calls
    )
    inputs = frozenset(map(id, trace.inputs))
    reached = Branches({}, steps, inputs).reached(())
    outputs = frozenset(id(x) for x in trace.outputs if id(x) in reached)
    bound = _bound(graph)
    readers = {
        site.name: found
        for site in graph.sites
        if not (site.nested or site.ungated or site.inexact or bound[site.units].any())
        and (found := _readers(graph, site.units, model))
    }
    every = Branches(readers, steps, inputs, outputs)
    alone = {name: found for name, found in readers.items() if every.answers([name])}
    return Branches(alone, steps, inputs, outputs)


def _bound(graph: Any) -> Mask:
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


def _readers(graph: Any, units: npt.NDArray[np.int64], model: nn.Module) -> tuple[str, ...]:
    """The layers that read units and nothing else; none where anything else reads them."""
    names = []
    modules = dict(model.named_modules())
    tied = several_names(model)
    for reader in graph.readers:
        mine = np.isin(reader.units, units)
        if not mine.any():
            continue
        name, _, leaf = reader.parameter.rpartition(".")
        module = modules.get(name)
        plain = mine.all() and reader.foldable and reader.groups == 1 and leaf == "weight"
        if not plain or module is None or not _replaceable(module) or reader.parameter in tied:
            return ()
        names.append(name)
    return tuple(names)


def several_names(model: nn.Module) -> set[str]:
    """The names of parameters that have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for found in names.values() if len(found) > 1 for name in found}


def _replaceable(module: nn.Module) -> bool:
    """Whether a layer's forward is the stock one, and nobody listens to it."""
    stock = any(type(module).forward is kind.forward for kind in SAME)
    conv1d = type(module).__name__ == "Conv1D" and getattr(module, "nf", None) is not None
    heard = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks
    return (stock or conv1d) and not padded(module) and not heard


def padded(module: nn.Module) -> bool:
    """Whether a convolution's padding is a word, whose size follows from others."""
    return isinstance(module, _ConvNd) and isinstance(module.padding, str)


def outputs_of(weight: Tensor, dim: int) -> int:
    """How many numbers a layer gives whose columns are along a dimension of its weight."""
    return weight.shape[1 - dim] if dim in (0, 1) else weight.shape[0]

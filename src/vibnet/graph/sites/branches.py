"""Sites that may go whole: what reads them becomes a constant, and the outputs still depend on
the inputs, as a residual branch does not keep a network from answering."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from vibnet.graph.capture.memory import storage
from vibnet.graph.capture.reach import writing
from vibnet.graph.capture.trace import Trace
from vibnet.graph.sites.constraints import Mask

SAME = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d  # and what computes as they do
READERS = nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
SHAPES = {  # operators that take of a tensor its shape alone
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("randint_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
}


Place = tuple[int, int]  # of a tensor: its identity, and the memory that it lies in


@dataclass(frozen=True)
class Step:
    """A call: the tensors that it is given and those that it makes, whether it writes, its module.

    What is taken for its shape alone is not among those given.
    """

    given: tuple[Place, ...]
    made: tuple[Place, ...]
    writes: bool
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
    inputs: tuple[Place, ...] = ()
    outputs: tuple[Place, ...] = ()

    def layers(self, sites: Collection[str]) -> tuple[str, ...]:
        """The layers that become constants when these sites are empty."""
        return tuple(dict.fromkeys(r for site in sites for r in self.readers[site]))

    def reached(self, empty: Collection[str]) -> list[Place]:
        """The outputs that depend on an input when sites have no unit left."""
        constant = set(self.layers(empty))
        found = {x for x, _ in self.inputs}
        written: set[int] = set()  # memory that something was written into which does

        def depends(places: Sequence[Place]) -> bool:
            return any(x in found or memory in written for x, memory in places)

        for step in self.steps:
            if step.module not in constant and depends(step.given):
                found.update(x for x, _ in step.made)
                written.update(memory for _, memory in step.made if step.writes)
        return [place for place in self.outputs if depends([place])]

    def answers(self, empty: Collection[str]) -> bool:
        """Whether every output still depends on an input when sites have no unit left."""
        return len(self.reached(empty)) == len(self.outputs)


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
        Step(
            () if call.op in SHAPES else _places(call.given),
            _places(call.results),
            writing(call),
            call.module,
        )
        for call in trace.calls
    )
    inputs = _places(trace.inputs)
    outputs = tuple(Branches({}, steps, inputs, _places(trace.outputs)).reached(()))
    if not outputs:
        return NO_BRANCHES
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


def _places(tensors: Sequence[Tensor]) -> tuple[Place, ...]:
    return tuple((id(x), storage(x)) for x in tensors)


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
    tied, looked_at = several_names(model), _looked_at(model)
    for reader in graph.readers:
        mine = np.isin(reader.units, units)
        if not mine.any():
            continue
        name, _, leaf = reader.parameter.rpartition(".")
        module = modules.get(name)
        plain = mine.all() and reader.foldable and reader.groups == 1 and leaf == "weight"
        if not plain or module is None or name in looked_at or reader.parameter in tied:
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


def outputs_of(weight: Tensor, dim: int) -> int:
    """How many numbers a layer gives whose columns are along a dimension of its weight."""
    return weight.shape[1 - dim] if dim in (0, 1) else weight.shape[0]

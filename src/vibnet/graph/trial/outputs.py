"""What modules give, call by call, and which unit stands at every position of it."""

from dataclasses import dataclass

import numpy as np

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.following import by_weight
from vibnet.graph.sites.structure import Graph
from vibnet.graph.trial.replay import Replay

INSIDE = "it is inside a norm, whose mean goes over fewer units after the cut"


@dataclass(frozen=True)
class Output:
    """A tensor that a module gives in one of its calls.

    Attributes:
        module: its dotted name.
        call: which call of a module it is in the forward, counted where they begin.
        leaf: which tensor of what the module gives.
        units: the unit of every position, dimension by dimension, or -1.
        reason: why a cut model's tensor need not be what stays of it, or "".
    """

    module: str
    call: int
    leaf: int
    units: tuple[Array, ...]
    reason: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape before the cut."""
        return tuple(map(len, self.units))

    def stay(self, kept: Mask) -> list[Array]:
        """The positions that stay in every dimension."""
        return [np.flatnonzero(np.where(units < 0, True, kept[units])) for units in self.units]


def outputs(engine: Labeller, traces: list[Trace], graph: Graph) -> list[Output]:
    """The tensors that modules give in eval mode and that the answers depend on.

    Args:
        engine: has seen the traces.
        traces: in train and in eval mode.
        graph: of the model.
    """
    number, trace = len(traces) - 1, traces[-1]
    replay, known = Replay(engine, graph), engine.dims_of[number]
    needed = {id(x) for k in trace.live for x in trace.calls[k].given}
    needed |= {id(x) for x in (*trace.outputs, *trace.kept)}
    inside = _inside(engine, number, trace, graph)
    along: dict[int, Array] = {}  # one array for all tensors with the same dimension
    found = []
    for call, module in enumerate(trace.modules):
        for leaf, x in enumerate(module.tensors):
            if id(x) in needed and id(x) in known:
                for dim in known[id(x)]:
                    along.setdefault(id(dim), replay.units[dim[0]])
                units = tuple(along[id(dim)] for dim in known[id(x)])
                reason = INSIDE if id(x) in inside else ""
                found.append(Output(module.name, call, leaf, units, reason))
    return found


def _inside(engine: Labeller, number: int, trace: Trace, graph: Graph) -> set[int]:
    """The tensors between the mean and the result of norms that follow a cut."""
    follows = by_weight(graph.norms)
    return {
        id(x)
        for normed in engine.normed
        if normed.trace == number and normed.found.weight in follows
        for call in trace.calls[normed.found.call : normed.found.gives]
        for x in call.results
    }

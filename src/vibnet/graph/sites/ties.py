"""Weights that write units and read them too, as a table of words that is the head.

A multiplier that goes into such a weight where it writes comes out once more where it reads. A norm
in front of the reader, which nothing else hears, takes it back.
"""

from collections.abc import Sequence

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.events import Normed, Read
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.norms import CASTS, Users
from vibnet.graph.sites.places import KEEPS_ELEMENTS


def taken_back(
    engine: Labeller, traces: Sequence[Trace], name: str, dim: int, uses: set[tuple[int, int]]
) -> str:
    """The norm's weight that takes the multipliers of a weight's other uses back, "" for none.

    Args:
        engine: has seen the traces.
        traces: of the model.
        name: of the weight that writes.
        dim: that holds the units.
        uses: its other uses, by trace and call.
    """
    reads = {(r.trace, r.call): r for r in engine.reads if r.parameter == name}
    if not all(use in reads and reads[use].parameter_dim == dim for use in uses):
        return ""
    flows = [Users(trace) for trace in traces]
    found = [_norm_before(engine, flows[use[0]], reads[use]) for use in sorted(uses)]
    weights = {norm.found.weight for norm in found if norm is not None}
    if None in found or len(weights) != 1:
        return ""
    (weight,) = weights
    alike = [n for n in engine.normed if n.found.weight == weight]
    return weight if len(alike) == len(found) else ""


def _norm_before(engine: Labeller, flow: Users, read: Read) -> Normed | None:
    """The norm whose result a read alone reads, as it is or times a number."""
    x, user = read.source, read.call
    gives = {n.found.gives: n for n in engine.normed if n.trace == read.trace}
    while flow.only_seen_by(x, user):
        made = flow.maker(x, user)
        if made in gives:
            return gives[made]
        call = flow.trace.calls[max(made, 0)]
        scales = call.op in ("mul", "div") and isinstance(call.args[1], (int, float))
        if made < 0 or not (call.op in KEEPS_ELEMENTS | CASTS or scales):
            return None
        x, user = call.args[0], made
    return None

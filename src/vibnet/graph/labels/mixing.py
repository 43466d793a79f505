"""Calls that make numbers of units of all of them, without a weight."""

from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels.events import Normed
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array

WITHOUT = "mixes it without a weight"


def mix(engine: Labeller, dim: Array, call: Call, what: str = WITHOUT) -> None:
    """A call that runs at any width mixes units: they stay whole.

    Unless no output depends on the call, or it is a root-mean-square norm, which can follow.
    """
    trace, found = engine.trace, engine.norm
    if trace is None or not engine.lives:
        return
    if found is None or found.reason:
        engine.labels.pin(dim, found.reason if found else f"{call} {what}")
    elif dim[0].any():
        adding = trace.calls[found.adding] if found.adding >= 0 else None
        engine.normed.append(Normed(len(engine.dims_of) - 1, found, dim, adding))


def statistic(
    engine: Labeller, dim: Array, call: Call, what: str = WITHOUT, *, alone: bool = True
) -> None:
    """A call mixes units and keeps each in its place.

    They stay whole, unless outputs may move (`inexact`) and the call follows the width by itself
    (`alone`).
    """
    if engine.norm is not None or not (engine.inexact and alone):
        mix(engine, dim, call, what)
    elif dim[0].any() and engine.lives:
        engine.blended.append((dim[0], f"{call} {what}"))


def one_group(engine: Labeller, weight: Tensor | None, groups: int) -> bool:
    """Whether a group norm has one group, and had so before a trial cut."""
    name = None if weight is None else engine.origin(weight)
    if engine.like is not None and name is not None:
        return name in engine.like.one_group
    if groups == 1 and name is not None:
        engine.one_group.add(name)
    return groups == 1

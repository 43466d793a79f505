"""Grouped convolutions: their weights count columns within a group."""

from torch import Tensor

from vibnet.graph.capture.trace import Call
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array, Blocks


def read(engine: Labeller, x: Tensor, weight: Tensor, groups: int, call: Call) -> None:
    """A grouped convolution reads its channels, each group with its own weight columns."""
    units = engine.dims(x)[1]
    engine.blocks.append(Blocks(units, groups, f"the {groups} groups of {call}"))
    name = _within_group(engine, weight, units, groups, call)
    if name is not None:
        engine.note_read(x, 1, name, 1, units, groups)


def write(engine: Labeller, weight: Tensor, groups: int, call: Call) -> Array:
    """A grouped transposed convolution makes channels, each group with its own columns."""
    name = engine.origin(weight) or ""
    known = engine.within_group.get((name, 1))
    size = groups * weight.shape[1]
    units = known[0] if known and known[0].shape[1] == size else engine.labels.new(size)
    engine.blocks.append(Blocks(units, groups, f"the {groups} groups of {call}"))
    _within_group(engine, weight, units, groups, call)
    engine.write(weight, units, call)
    return units


def _within_group(
    engine: Labeller, weight: Tensor, units: Array, groups: int, call: Call
) -> str | None:
    """The second dimension of a weight counts units within a group; the name of the weight."""
    name, dims = engine.origin(weight), engine.dims(weight)
    engine.labels.pin(dims[1], f"{call} counts these columns within a group")
    if name is None:
        engine.labels.pin(units, f"{call} reads it with a weight that is computed, not stored")
        return None
    if any(a is not b for a, b in zip(dims[:2], engine.parameters[name][:2], strict=True)):
        for dim in (units, *dims[:2]):
            engine.labels.pin(dim, f"{call} reads it through a reshaped weight")
        return None
    before = engine.within_group.setdefault((name, 1), (units, groups))
    if before[1] == groups and before[0].shape == units.shape:
        engine.labels.same(before[0], units, f"{call} shares its weight with another reader")
    else:
        for dim in (before[0], units):
            engine.labels.pin(dim, f"{call} shares its weight with other groups")
    engine.only_use(name)
    return name

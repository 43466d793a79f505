"""Numbers that modules keep of their own widths: heads, split sizes, output sizes.

``self.num_heads`` in ``x.view(batch, tokens, self.num_heads, -1)`` leaves no mark in a trace. An
attribute of the module that makes such a call, equal to the size of an axis of units that the call
gives, may be that number. A trial cut with the number changed shows whether it is.
"""

from collections.abc import Sequence

import numpy as np
from torch import nn

from vibnet.graph.constraints import Mask
from vibnet.graph.labeller import Labeller
from vibnet.graph.labels import Array
from vibnet.graph.trace import SHAPED, Call, Trace

Numbers = dict[tuple[str, str], Array]


def candidates(
    engine: Labeller, traces: Sequence[Trace], units: Array, model: nn.Module, like: Call
) -> Numbers:
    """The units that attributes of modules may count in calls of one kind, by module and attribute.

    Not one that could count different units, and none of torch's own layers.

    Args:
        engine: has seen the traces.
        traces: of the model.
        units: the unit of every label, or -1.
        model: whose modules are looked at.
        like: a call; those on the same line count.
    """
    found: Numbers = {}
    several: set[tuple[str, str]] = set()
    stated = {name: _integers(module) for name, module in model.named_modules()}
    for number, trace in enumerate(traces):
        for call in trace.calls:
            mine = stated.get(call.module, {}) if call.stack else stated[""]
            if not mine or call.op not in SHAPED or call.line != like.line:
                continue
            for held in _axes(engine, number, call, units):
                for attribute in (a for a, value in mine.items() if value == len(held)):
                    key = call.module, attribute
                    if not np.array_equal(found.setdefault(key, held), held):
                        several.add(key)
    return {key: held for key, held in found.items() if key not in several}


def _integers(module: nn.Module) -> dict[str, int]:
    if type(module).__module__.startswith("torch."):
        return {}
    return {k: v for k, v in vars(module).items() if type(v) is int and v > 0}


def _axes(engine: Labeller, number: int, call: Call, units: Array) -> list[Array]:
    """The units along every axis that a call gives, or takes apart, where there are any."""
    known = engine.dims_of[number]
    both = (*call.results[:1], *call.given[:1])
    held = (units[dim[0]] for x in both for dim in known.get(id(x), ()))
    return [axis for axis in held if (axis >= 0).any()]


def state(model: nn.Module, numbers: dict[str, int]) -> None:
    """Give attributes of modules their values, by dotted name."""
    for name, value in numbers.items():
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, value)


def counts(numbers: Numbers, kept: Mask) -> dict[str, int]:
    """What the attributes are after a cut, by dotted name."""
    return {
        f"{module}.{attribute}".lstrip("."): int(np.where(units < 0, True, kept[units]).sum())
        for (module, attribute), units in numbers.items()
    }

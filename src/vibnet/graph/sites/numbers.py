"""Numbers that modules keep of their own widths: heads, split sizes, output sizes.

``self.num_heads`` in ``x.view(batch, tokens, self.num_heads, -1)`` leaves no mark in a trace. An
attribute of the module that makes such a call, equal to the size of an axis of units that the call
gives, may be that number. A trial cut with the number changed shows whether it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import nn

from vibnet.graph.capture.trace import SHAPED, Call, Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.constraints import Mask

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
            listed = _listed(engine, number, call, units, mine)
            for held in _axes(engine, number, call, units):
                for attribute in (a for a, value in mine.items() if value == len(held)):
                    key = call.module, attribute
                    axis = listed.get(attribute, held)
                    if not np.array_equal(found.setdefault(key, axis), axis):
                        several.add(key)
    return {key: held for key, held in found.items() if key not in several}


def _integers(module: nn.Module) -> dict[str, int]:
    """The numbers above 0 in attributes of a module; in lists and tuples too, as `sizes[0]`."""
    if type(module).__module__.startswith("torch."):
        return {}
    held: dict[str, Any] = {}
    for name, value in vars(module).items():
        if type(value) in (list, tuple):
            held |= {f"{name}[{k}]": one for k, one in enumerate(value)}
        else:
            held[name] = value
    return {k: v for k, v in held.items() if type(v) is int and v > 0}


def _listed(
    engine: Labeller, number: int, call: Call, units: Array, stated: dict[str, int]
) -> dict[str, Array]:
    """The units of the parts that a list of sizes cuts an axis into, by entry: place by place."""
    sizes = call.args[1] if call.op == "split_with_sizes" else ()
    axis = call.args[2] if len(call.args) > 2 else call.kwargs.get("dim", 0)
    out: dict[str, Array] = {}
    for name in {a.partition("[")[0] for a in stated if "[" in a}:
        entries = [f"{name}[{k}]" for k in range(len(sizes))]
        if entries and [stated.get(e) for e in entries] == list(sizes):
            for entry, part in zip(entries, call.results, strict=True):
                out[entry] = units[engine.dims_of[number][id(part)][axis][0]]
    return out


def _axes(engine: Labeller, number: int, call: Call, units: Array) -> list[Array]:
    """The units along every axis that a call gives, or takes apart, where there are any."""
    known = engine.dims_of[number]
    results = call.results if call.op == "split_with_sizes" else call.results[:1]
    both = (*results, *call.given[:1])
    held = (units[dim[0]] for x in both for dim in known.get(id(x), ()))
    return [axis for axis in held if (axis >= 0).any()]


def state(model: nn.Module, numbers: Mapping[str, float]) -> None:
    """Give attributes of modules their values, by dotted name."""
    for name, value in numbers.items():
        module, _, attribute = name.rpartition(".")
        put(model.get_submodule(module), attribute, value)


def stated(module: object, attribute: str) -> Any:
    """The value of an attribute, or of an entry of one that is a list, as `sizes[0]`; or None."""
    name, _, place = attribute.partition("[")
    value: Any = vars(module).get(name)
    if not place:
        return value
    k = int(place.rstrip("]"))
    return value[k] if type(value) in (list, tuple) and k < len(value) else None


def put(module: nn.Module, attribute: str, value: float) -> None:
    """Set an attribute, or an entry in a new list in the place of the old one."""
    name, _, place = attribute.partition("[")
    if place:
        held = getattr(module, name)
        entries = list(held)
        entries[int(place.rstrip("]"))] = value
        setattr(module, name, type(held)(entries))
    else:
        setattr(module, name, value)


def counts(numbers: Numbers, kept: Mask) -> dict[str, int]:
    """What the attributes are after a cut, by dotted name."""
    return {
        f"{module}.{attribute}".lstrip("."): int(np.where(units < 0, True, kept[units]).sum())
        for (module, attribute), units in numbers.items()
    }

"""Weights that no layer multiplies by as they are stored: they belong to no site, and are named."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from vibnet.graph.capture.trace import Trace
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.structure import Site

PARTS = ".parametrizations."


def overlooked(
    engine: Labeller,
    traces: Sequence[Trace],
    roots: Array,
    pins: Mapping[int, str],
    written: Array,
    known: Collection[str],
) -> list[Site]:
    """Pinned sites of weights whose rows no layer writes and whose columns none reads.

    As where a norm of the weight, or a mask, is computed first.

    Args:
        engine: has seen the traces.
        traces: in train and in eval mode.
        roots: the class of every label.
        pins: the reasons of classes that may not be cut.
        written: the classes that sites are made of.
        known: the names of layers that sites have.
    """
    stored = {name for name, _ in traces[-1].model.named_parameters()}
    out: dict[str, Site] = {}
    for name, uses in engine.used.items():
        dims, layer = engine.parameters.get(name, ()), owner_of(name)
        if name not in stored or len(dims) < 2 or layer in known or layer in out:
            continue
        if any(np.isin(roots[dim[0]], written).any() for dim in dims):
            continue
        found = (pins[root] for dim in dims for root in roots[dim[0]].tolist() if root in pins)
        why = next(found, "")
        if uses and not why:
            trace, number = min(uses)
            call = traces[trace].calls[number]
            why = f"{call} computes with {name} before a layer multiplies by it"
        out[layer] = Site(layer, dims[0].shape[1], np.arange(0), (layer,), (), why)
    return list(out.values())


def owner_of(parameter: str) -> str:
    """The layer that holds a parameter, past its parametrisations."""
    return parameter.partition(PARTS)[0] if PARTS in parameter else owner(parameter)


def owner(parameter: str) -> str:
    """The module that holds a parameter; one of the model itself is its own."""
    return parameter.rpartition(".")[0] or parameter

"""Layers that pick what they read by index, looked at as the whole layers they came from.

Such a layer is followed with zero columns for what it does not pick, as if those were still to be
cut, and the graph is then that of the model after just this cut.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from vibnet.errors import NoSitesError
from vibnet.graph.capture.refusals import in_the_way
from vibnet.graph.capture.shadow import copied
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.prices import counted
from vibnet.graph.sites.structure import Graph, Nested, Request, fingerprint
from vibnet.graph.trial.restrict import restrict
from vibnet.layers import SelectedLinear


def asked(model: nn.Module, request: Request) -> list[str]:
    """The layers that pick, of whose picks some may go: those named, and those of the inputs."""
    found = [
        name
        for name, module in model.named_modules()
        if type(module) is SelectedLinear
        and (request.inputs or name in request.features)
        and _in_order(module)
        and not _shared(model, module)
    ]
    return [] if found and in_the_way(model) else found  # the capture says what it is


def _in_order(layer: SelectedLinear) -> bool:
    """Whether it picks features once each, in their order, as a cut leaves them."""
    index = layer.index
    if index.device.type == "meta":
        return False
    positions = index.cpu().numpy()
    return bool((np.diff(positions, prepend=-1, append=layer.given) > 0).all())


def _shared(model: nn.Module, layer: SelectedLinear) -> bool:
    """Whether its weight is registered elsewhere too."""
    holders = [
        (module, leaf)
        for module in model.modules()
        for leaf, value in module._parameters.items()
        if value is layer.weight
    ]
    return len(holders) > 1


def whole(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy in which layers that pick read all they are given; the rest shares its tensors."""
    layers = [_layer(model, name) for name in names]
    memo: dict[int, Any] = {id(v): v for v in (*model.parameters(), *model.buffers())}
    # whatever else holds such a weight, a list for one, holds the wide one in the copy
    memo |= {id(layer.weight): layer.wide() for layer in layers}
    wide = copied(model, memo)
    for name in names:
        _layer(wide, name).plain()
    return wide


def _layer(model: nn.Module, name: str) -> SelectedLinear:
    layer = model.get_submodule(name)
    assert isinstance(layer, SelectedLinear)
    return layer


def narrowed(graph: Graph, model: nn.Module) -> Graph:
    """The graph of the model itself, from that of its whole copy.

    Raises:
        NoSitesError: two layers of one site pick different inputs.
    """
    kept = np.ones(graph.total, dtype=np.bool_)
    picks = {nested.module: _picks(nested, model) for nested in graph.nested}
    for nested in graph.nested:
        kept[np.setdiff1d(nested.units, picks[nested.module])] = False
    if odd := [name for name, units in picks.items() if not kept[units].all()]:
        raise NoSitesError(
            f"inputs=True, but {', '.join(odd)} of {type(model).__name__} and other layers pick "
            f"different inputs. Name one of them in features."
        )
    left = restrict(graph, kept)
    sites = [replace(s, original=None, first=0) for s in left.sites]
    left = replace(left, sites=sites, source=fingerprint(model))
    return counted(left, {name for name, _ in model.named_parameters()})


def _picks(nested: Nested, model: nn.Module) -> Array:
    """The units that a layer reads."""
    layer = model.get_submodule(nested.module)
    if not isinstance(layer, SelectedLinear):
        return nested.units
    units: Array = nested.units[layer.index.cpu().numpy()]
    return units

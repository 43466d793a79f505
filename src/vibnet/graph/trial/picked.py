"""Layers that pick what they read by index, looked at as the whole layers they came from.

Such a layer is followed with zero columns for what it does not pick, as if those were still to be
cut, and the graph is then that of the model after just this cut.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from vibnet.errors import NoSitesError
from vibnet.graph.capture.shadow import copied
from vibnet.graph.labels.labels import Array
from vibnet.graph.sites.prices import counted
from vibnet.graph.sites.structure import Graph, Nested, Request, fingerprint
from vibnet.graph.trial.restrict import restrict
from vibnet.layers import SelectedLinear


def asked(model: nn.Module, request: Request) -> list[str]:
    """The layers that pick, of whose picks some may go: those named, and those of the inputs."""
    return [
        name
        for name, module in model.named_modules()
        if type(module) is SelectedLinear
        and (request.inputs or name in request.features)
        and _in_order(module)
        and not _shared(model, module)
    ]


def _in_order(layer: SelectedLinear) -> bool:
    """Whether it picks features once each, in their order, as a cut leaves them."""
    index = layer.index
    if index.device.type == "meta":
        return False
    ends = torch.tensor([-1, layer.given])
    return bool((torch.cat([ends[:1], index.cpu(), ends[1:]]).diff() > 0).all())


def _shared(model: nn.Module, layer: SelectedLinear) -> bool:
    """Whether its weight is another layer's too."""
    holders = {
        id(module)
        for module in model.modules()
        for value in module._parameters.values()
        if value is layer.weight
    }
    return len(holders) > 1


def whole(model: nn.Module, names: Collection[str]) -> nn.Module:
    """A copy in which layers that pick read all they are given; the rest shares its tensors."""
    memo: dict[int, Any] = {id(v): v for v in (*model.parameters(), *model.buffers())}
    wide = copied(model, memo)
    for name in names:
        layer = wide.get_submodule(name)
        assert isinstance(layer, SelectedLinear)
        layer.whole()
    return wide


def narrowed(graph: Graph, model: nn.Module, names: Collection[str]) -> Graph:
    """The graph of the model itself, from that of its whole copy. `names`: each with its site.

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

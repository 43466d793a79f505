"""Put gates into a copy of a model, and price them."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from vibnet.errors import ConfigError, NoSitesError
from vibnet.graph.probe import analyse
from vibnet.graph.sites import Graph, Site
from vibnet.surgery.gated import Gated


def _select(
    sites: Sequence[Site], include: Sequence[str], exclude: Sequence[str], model: nn.Module
) -> list[Site]:
    names = [s.name for s in sites]
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(n, pattern) for s in sites for n in (s.name, *s.writers)):
            raise NoSitesError(
                f"pattern {pattern!r} selects none of the {len(names)} gateable sites of "
                f"{type(model).__name__}. They are: {', '.join(names) or 'none'}. Patterns match "
                f"whole dotted names, as in 'features.*'."
            )

    def hit(site: Site, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(n, p) for n in (site.name, *site.writers) for p in patterns)

    chosen = [s for s in sites if not include or hit(s, include)]
    return [s for s in chosen if not hit(s, exclude)]


def attach(
    model: nn.Module,
    example: Any,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    min_units: int = 1,
    multiple: int = 1,
    weights: dict[str, float] | None = None,
) -> Gated:
    """A copy of a model with a gate at every site that can be cut exactly.

    Args:
        model: any module; left untouched.
        example: what the model is called with: a tensor, a tuple of arguments or a dict.
        include: globs on dotted module names; only these sites. Every pattern must hit.
        exclude: globs of sites left alone. Every pattern must hit.
        min_units: sites with fewer units are left alone.
        multiple: kept units of a site are a multiple of this (or all of them).
        weights: price of a nat per site, by site name; 1 where not named.

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: nothing can be gated, or a pattern selects nothing.
        ConfigError: a number out of range.
    """
    for name, value in (("min_units", min_units), ("multiple", multiple)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(
                f"attach: {name} must be a whole number of at least 1, got {value!r}."
            )
    graph = analyse(model, example)
    gateable = [s for s in graph.sites if not s.ungated and s.size >= min_units]
    chosen = _select(gateable, include, exclude, model)
    if not chosen:
        raise NoSitesError(_nothing(model, graph))
    prices = weights or {}
    unknown = sorted(set(prices) - {s.name for s in chosen})
    if unknown or not all(0 <= w < math.inf for w in prices.values()):
        raise ConfigError(
            f"attach: weights must map gated sites to finite numbers >= 0, got {prices!r}. The "
            f"gated sites are: {', '.join(s.name for s in chosen)}."
        )
    chosen = [replace(s, weight=prices.get(s.name, 1.0)) for s in chosen]
    return Gated(copy.deepcopy(model), graph, chosen, example, multiple)


def _nothing(model: nn.Module, graph: Graph) -> str:
    reasons = [f"{s.name}: {s.reason or s.ungated}" for s in (*graph.pinned, *graph.sites)]
    listed = "; ".join(r for r in reasons if not r.endswith(": "))
    return (
        f"{type(model).__name__} has no site that can be gated. {listed or 'No weight was found.'} "
        f"Change what is named, or pass other patterns."
    )


def find(model: nn.Module) -> Gated:
    """The gated model in a module: itself, or what DDP and other wrappers hold."""
    for module in model.modules():
        if isinstance(module, Gated):
            return module
    raise ConfigError(
        f"{type(model).__name__} holds no gated model. Pass what vibnet.attach returned."
    )


def penalty(gated: nn.Module, gamma: float) -> Tensor:
    """The information-bottleneck penalty, to be added to the mean loss.

    Args:
        gated: what `attach` returned, or a wrapper round it.
        gamma: loss per nat, finite and >= 0; equals ``2 * gamma_eq9 / L``.

    Returns:
        A scalar: gamma * sum over sites of weight * sum over units of 0.5 * log(1 + snr).

    Source:
        Dai et al. 2018, eq. 9 divided by L, with eq. 7's factor of one half kept.
    """
    if not (isinstance(gamma, (int, float)) and 0 <= gamma < math.inf):
        raise ConfigError(f"penalty: gamma must be a finite number >= 0, got {gamma!r}.")
    owner = find(gated)
    nats = [site.weight * gate.rate().sum() for site, gate in owner.all_gates()]
    return gamma * torch.stack(nats).sum()


def parameter_groups(
    gated: nn.Module, lr: float, gate_lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights with decay, gates without and with their own rate."""
    owner = find(gated)
    gates = list(owner.gates.parameters())
    ours = {id(p) for p in gates}
    rest = [p for p in gated.parameters() if id(p) not in ours]
    return [
        {"params": rest, "lr": lr, "weight_decay": weight_decay},
        {"params": gates, "lr": gate_lr, "weight_decay": 0.0},
    ]

"""Put gates into a copy of a model, and price them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vibnet.errors import ConfigError, NoSitesError
from vibnet.graph import checks
from vibnet.graph.capture.shadow import copied
from vibnet.graph.sites.prices import ABSOLUTE, PRICES, RELATIVE
from vibnet.graph.sites.stock import ready
from vibnet.graph.sites.structure import Request, Site
from vibnet.graph.trial.probe import analyse
from vibnet.methods import METHODS
from vibnet.surgery.gated import Gated

LISTED = 8  # reasons why nothing can be gated, in one message


def _select(
    sites: Sequence[Site],
    others: Sequence[tuple[Site, str]],
    include: Sequence[str],
    exclude: Sequence[str],
    model: nn.Module,
) -> list[Site]:
    def hit(site: Site, patterns: Sequence[str]) -> bool:
        return any(fnmatchcase(n, p) for n in (site.name, *site.writers) for p in patterns)

    names = [s.name for s in sites]
    for pattern in (*include, *exclude):
        if not any(hit(s, [pattern]) for s in sites):
            why = [f"{s.name}: {reason}" for s, reason in others if hit(s, [pattern])]
            raise NoSitesError(
                f"pattern {pattern!r} selects none of the {len(names)} gateable sites of "
                f"{type(model).__name__}. They are: {', '.join(names) or 'none'}. "
                + (f"Without a gate are {'; '.join(why)}. " if why else "")
                + "Patterns match whole dotted names, as in 'features.*'."
            )

    chosen = [s for s in sites if not include or hit(s, include)]
    return [s for s in chosen if not hit(s, exclude)]


def attach(
    model: nn.Module,
    example: Any,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    inputs: bool = False,
    features: Sequence[str] = (),
    ignore: Sequence[str] = (),
    min_units: int = 1,
    multiple: int = 1,
    weights: str | Mapping[str, float | str] = "uniform",
    method: str = "vib",
    replace_attention: bool = False,
    allow_inexact: bool = False,
    remove_branches: bool = False,
) -> Gated:
    """A copy of a model with a gate at every site that can be cut exactly.

    Args:
        model: any module; left untouched.
        example: what the model is called with: a tensor, a tuple of arguments or a dict.
        include: globs on dotted module names; only these sites. Every pattern must hit.
        exclude: globs of sites left alone. Every pattern must hit.
        inputs: gate every single number of the model's input that linear layers read.
        features: names of linear layers; gate every single feature that they read.
        ignore: globs on parameters that the example never uses and that nothing else will; without
            it, sites that such a parameter could read are left alone.
        min_units: sites with fewer units are left alone.
        multiple: kept units of a site are a multiple of this (or all of them).
        weights: price of a nat per site: "uniform" (1); "width" or "area" of the map that the
            units are written on, before pooling; "macs", "params" or "memory", what one unit costs
            at present widths, 1 in the mean; or per site name a number, "width" or "area", 1 where
            not named.
        replace_attention: put attentions that hold any number of heads in the place of
            `nn.MultiheadAttention` and of torchvision's shifted windows, so that heads can go.
        allow_inexact: gate units too that a layer norm, a group norm of one group or a softmax goes
            over. Cutting those moves the outputs, and the report says how far.
        remove_branches: let all units of a site go where the outputs need none, as inside a
            residual branch. What has become a constant by that is replaced by one.
        method: "vib"; or the paper's foil without noise (eq. 16): "twin-l1" or "twin-rho".

    Raises:
        CaptureError: the model does not run on the example.
        NoSitesError: nothing can be gated, or a pattern selects nothing.
        ConfigError: no module, a model that is gated already, an argument of the wrong type or out
            of range, or a `multiple` with which nothing could be cut.
    """
    checks.module("attach", model)
    if any(isinstance(m, Gated) for m in model.modules()):
        raise ConfigError(
            "attach: this model is already gated. Pass the model that was given to attach before, "
            "or what vibnet.prune returned."
        )
    for name, value in (("min_units", min_units), ("multiple", multiple)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(
                f"attach: {name} must be a whole number of at least 1, got {value!r}."
            )
    patterns = checks.names("attach: include", include), checks.names("attach: exclude", exclude)
    if method not in METHODS:
        raise ConfigError(f"attach: method must be one of {', '.join(METHODS)}, got {method!r}.")
    request = Request.of(
        features, inputs, ignore, replace_attention, allow_inexact, remove_branches
    )
    model = ready(model, request)
    graph = analyse(model, example, request)
    reasons = [(s, _why_not(s, min_units)) for s in (*graph.pinned, *graph.sites)]
    gateable = [s for s, reason in reasons if not reason]
    chosen = _select(gateable, [r for r in reasons if r[1]], *patterns, model)
    if not chosen:
        raise NoSitesError(_nothing(model, reasons))
    largest = max(s.size for s in chosen)
    if multiple >= largest:
        raise ConfigError(
            f"attach: multiple is {multiple}, but the largest gated site has {largest} units, so "
            f"nothing could be cut. Give a smaller one."
        )
    return Gated(copied(model, {}), graph, _priced(chosen, weights), example, multiple, method)


def _why_not(site: Site, min_units: int) -> str:
    """Why a site has no gate whatever is selected, empty if it may have one."""
    small = f"it has {site.size} units, fewer than min_units, {min_units}"
    single = site.nested and site.size == 1  # other sites say so themselves
    alone = "no legal cut: it has one unit, and one must stay" if single else ""
    return site.reason or site.ungated or alone or (small if site.size < min_units else "")


def _priced(sites: list[Site], weights: str | Mapping[str, float | str]) -> list[Site]:
    """Sites with the price of a nat."""
    if isinstance(weights, str):
        if weights not in PRICES:
            raise ConfigError(
                f"attach: weights must be one of {', '.join(PRICES)}, or a number per site, got "
                f"{weights!r}."
            )
        raw = {s.name: s.costs.get(weights, 1.0) for s in sites}
        if weights in RELATIVE:
            mean = sum(raw[s.name] * s.size for s in sites) / sum(s.size for s in sites)
            raw = {name: value / mean for name, value in raw.items()}
        return [replace(s, weight=raw[s.name]) for s in sites]
    if not isinstance(weights, Mapping):
        raise ConfigError(
            f"attach: weights must be one of {', '.join(PRICES)}, or a mapping from sites to "
            f"numbers, got {weights!r}."
        )
    unknown = set(weights) - {s.name for s in sites}
    if unknown or not all(_is_price(w) for w in weights.values()):
        raise ConfigError(
            f"attach: weights must map gated sites to finite numbers >= 0 or to one of "
            f"{', '.join(ABSOLUTE)}, got {weights!r}. The gated sites are: "
            f"{', '.join(s.name for s in sites)}."
        )
    given = ((s, weights.get(s.name, 1.0)) for s in sites)
    return [replace(s, weight=s.costs[w] if isinstance(w, str) else float(w)) for s, w in given]


def _is_price(weight: object) -> bool:
    if isinstance(weight, str):
        return weight in ABSOLUTE
    return checks.is_number(weight)


def _nothing(model: nn.Module, reasons: list[tuple[Site, str]]) -> str:
    listed = [f"{s.name}: {reason or 'include or exclude leaves it out'}" for s, reason in reasons]
    if len(listed) > LISTED:
        listed[LISTED:] = [f"and {len(listed) - LISTED} more, which vibnet.plan lists"]
    return (
        f"{type(model).__name__} has no site that can be gated. "
        f"{'; '.join(listed) or 'No weight was found'}. "
        f"Change what is named, or pass other patterns."
    )


def find(model: nn.Module) -> Gated:
    """The gated model in a module: itself, or what DDP and other wrappers hold."""
    for module in model.modules() if isinstance(model, nn.Module) else ():
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
        A scalar: with VIB's gates gamma * sum over sites of weight * sum over units of
        0.5 * log(1 + snr); with others what their method says, every price times gamma.

    Raises:
        ConfigError: no gated model, or gamma out of range.

    Source:
        Dai et al. 2018, eq. 9 divided by L, with eq. 7's factor of one half kept.
    """
    gamma = checks.number("penalty: gamma", gamma)
    owner = find(gated)
    columns = owner.joined()
    weights = np.repeat([s.weight for s in owner.sites], [s.size for s in owner.sites])
    prices = torch.as_tensor(weights).to(columns[0])
    return METHODS[owner.method].penalty(columns, prices, gamma)


def parameter_groups(
    gated: nn.Module, lr: float, gate_lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """Groups for an optimiser: weights with decay, gates without and with their own rate.

    Raises:
        ConfigError: no gated model, or a number that is negative or not finite.
    """
    owner = find(gated)
    for name, value in (("lr", lr), ("gate_lr", gate_lr), ("weight_decay", weight_decay)):
        checks.number(f"parameter_groups: {name}", value)
    gates = list(owner.gates.parameters())
    ours = {id(p) for p in gates}
    rest = [p for p in gated.parameters() if id(p) not in ours]
    return [
        {"params": rest, "lr": lr, "weight_decay": weight_decay},
        {"params": gates, "lr": gate_lr, "weight_decay": 0.0},
    ]

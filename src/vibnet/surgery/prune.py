"""Fold the multipliers into the weights, cut, verify: a plain smaller model."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import FoldError, PlanError, VerificationError
from vibnet.graph.capture import arguments
from vibnet.graph.constraints import Mask
from vibnet.graph.cut import cut
from vibnet.graph.probe import analyse
from vibnet.graph.restrict import restrict
from vibnet.graph.sites import Graph
from vibnet.layers import SelectedLinear
from vibnet.surgery import plan as planning
from vibnet.surgery.gated import Gated, without_hooks
from vibnet.surgery.plan import Plan

LARGEST_DOUBLE = 2**30  # bytes of a model that is verified in float64
TOLERANCE = 1e-10  # of the output scale, float64


_REPORTS: "WeakKeyDictionary[nn.Module, Report]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Report:
    """What a cut did.

    Attributes:
        plan: the units kept, and why other sites stay whole.
        tensors: the positions kept in every dimension of every tensor that was cut.
        weights: parameters before and after.
        difference: how far the answers moved, as a part of their scale; None if not verified.
        unchanged: every unit was open, and the model is an equal copy.
        depthwise: names of depthwise weights, and `widths` of norms that hold no tensor.
        selected: linear layers that now pick their features by index, with how many.
    """

    plan: Plan
    tensors: dict[str, list[list[int]]]
    weights: tuple[int, int]
    difference: float | None
    unchanged: bool
    depthwise: frozenset[str] = frozenset()
    widths: dict[str, int] = field(default_factory=dict)
    selected: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        before, after = self.weights
        moved = "not verified" if self.difference is None else f"{self.difference:.1e} of the scale"
        head = "every unit is open: an equal copy" if self.unchanged else "cut"
        lines = [f"{head}: {before} -> {after} parameters, outputs moved by {moved}"]
        lines += [f"{k} picks its {n} features by index" for k, n in self.selected.items()]
        return "\n".join([*lines, str(self.plan)])


def bare(model: nn.Module) -> nn.Module:
    """A copy of a model without hooks of ours."""
    return without_hooks(copy.deepcopy(model))


def fold(model: nn.Module, graph: Graph, multipliers: Tensor) -> None:
    """Multiply the columns of every reader's weight by its units' multipliers, in place.

    Exact, for a reader is linear in what it reads and its weight has no other use. Where it has
    one, the multipliers go into an affine in front that only this reader sees, or into the weight
    that writes the units.

    Raises:
        FoldError: there is no such place, or only positive multipliers come through.
    """
    state = dict(model.named_parameters(remove_duplicate=False))
    state.update(model.named_buffers(remove_duplicate=False))  # type: ignore[arg-type]  # tensors
    for reader in graph.readers:
        units = torch.as_tensor(reader.units)
        scale = torch.where(units < 0, 1.0, multipliers[units.clamp(min=0)])
        if bool((scale == 1).all()):
            continue
        if reader.foldable:
            _scale(state[reader.parameter], reader.dim, reader.groups, scale)
            continue
        if reader.detour is None:
            raise FoldError(
                f"{reader.parameter} is used in another way too, so no multiplier fits into it."
            )
        if reader.detour.positive and bool((scale < 0).any()):
            raise FoldError(
                f"{reader.parameter} is used in another way too, and {reader.detour.positive} lets "
                f"only positive multipliers through to it, but {int((scale < 0).sum())} of "
                f"{len(scale)} are negative. Leave the site out with exclude, or keep its means "
                f"positive."
            )
        for name, dim in reader.detour.scaled:
            units = torch.as_tensor(graph.parameters[name][dim])
            scale = torch.where(units < 0, 1.0, multipliers[units.clamp(min=0)])
            _scale(state[name], dim, 1, scale)


def _scale(weight: Tensor, dim: int, groups: int, scale: Tensor) -> None:
    with torch.no_grad():
        weight.copy_((weight.double() * _columns(weight, dim, groups, scale)).to(weight))


def _columns(weight: Tensor, dim: int, groups: int, scale: Tensor) -> Tensor:
    scale = scale.to(weight.device)
    if groups > 1:
        rows = scale.reshape(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
        return rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))
    shape = [1] * weight.ndim
    shape[dim] = -1
    return scale.reshape(shape)


def closed(model: nn.Module, graph: Graph, kept: Mask) -> nn.Module:
    """A copy of a plain model of the same size whose readers ignore the units that go."""
    model = bare(model)
    state = dict(model.named_parameters(remove_duplicate=False))
    for reader in graph.readers:
        units = reader.units
        scale = torch.as_tensor(np.where(units < 0, True, kept[units])).double()
        with torch.no_grad():
            weight = state[reader.parameter]
            weight.mul_(_columns(weight, reader.dim, reader.groups, scale).to(weight))
    return model


def answers(model: nn.Module, example: Any, dtype: torch.dtype) -> list[Tensor]:
    """The outputs of a model in eval mode, in a floating point type, on a copy."""
    model = copy.deepcopy(model).to(dtype).eval()
    cast = lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x  # noqa: E731
    args, kwargs = tree_map(cast, arguments(example))
    with torch.no_grad(), torch.random.fork_rng():
        output = model(*args, **kwargs)
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    return [x.double() for x in tree_leaves(values) if isinstance(x, Tensor)]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference of two answers, as a part of the largest output."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return float("inf")
        scale = max(float(x.abs().max()), 1e-30) if x.numel() else 1.0
        gap = float((x - y).abs().max()) / scale if x.numel() else 0.0
        worst = gap if math.isnan(gap) else max(worst, gap)
    return worst


def _folded(
    inner: nn.Module, graph: Graph, multipliers: Tensor | None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A copy of a model, at full size, with the multipliers in its weights."""
    whole = bare(inner)
    if dtype is not None:
        whole = whole.to(dtype)
    if multipliers is not None:
        fold(whole, graph, multipliers)
    return whole


def _cut(
    inner: nn.Module, graph: Graph, kept: Mask, multipliers: Tensor | None
) -> tuple[nn.Module, dict[str, list[list[int]]]]:
    """A small copy of a model with the multipliers in its weights, and the positions kept.

    What is cut away is never copied.
    """
    shared = {id(v): v for v in (*inner.parameters(), *inner.buffers())}
    small = without_hooks(copy.deepcopy(inner, dict(shared)))
    tensors = cut(small, graph, kept)
    own: dict[int, Any] = {}
    for module in small.modules():
        for table in (module._parameters, module._buffers):
            for leaf, value in table.items():
                if id(value) in shared:
                    table[leaf] = own.setdefault(id(value), copy.deepcopy(value))
    if multipliers is not None:
        fold(small, restrict(graph, kept), multipliers[torch.as_tensor(kept)])
    return small, tensors


def _refuse(gap: float, allowed: float) -> None:
    if not gap <= allowed:
        raise VerificationError(
            f"the small model answers differently: outputs moved by {gap:.1e} of their scale, "
            f"{allowed:.0e} is allowed. Nothing was changed. Please report the model."
        )


def compare(
    model: nn.Module,
    inner: nn.Module,
    small: nn.Module,
    graph: Graph,
    kept: Mask,
    multipliers: Tensor | None,
    example: Any,
) -> float:
    """How far the small model's answers are from those of the model it was cut from.

    Models under 1 GiB: the same cut is made on a float64 copy and must agree to 1e-10 of the
    output scale; then the small model itself must agree with it to 100 times the rounding noise
    that the model's own type shows. Larger ones: only the second, against the model as it is.

    Args:
        model: the gated model, or for a given plan the plain one.

    Raises:
        VerificationError: further than rounding explains.
    """
    own = next((p.dtype for p in inner.parameters() if p.is_floating_point()), torch.float32)
    size = sum(p.numel() * p.element_size() for p in inner.parameters())
    gap, exact = 0.0, None
    if size < LARGEST_DOUBLE:
        twin = _folded(inner, graph, multipliers, torch.float64)
        reference = model if isinstance(model, Gated) else closed(twin, graph, kept)
        cut(twin, graph, kept)
        exact = answers(reference, example, torch.float64)
        gap = difference(exact, answers(twin, example, torch.float64))
        _refuse(gap, TOLERANCE)
    else:
        reference = model if isinstance(model, Gated) else closed(inner, graph, kept)
    rounded = answers(reference, example, own)
    noise = difference(exact, rounded) if exact else 0.0
    moved = difference(exact or rounded, answers(small, example, own))
    _refuse(moved, 100 * max(noise, torch.finfo(own).eps))
    return gap if exact else moved


def prune(
    model: nn.Module,
    plan: Plan | None = None,
    example: Any = None,
    *,
    verify: bool = True,
) -> tuple[nn.Module, Report]:
    """A smaller model of the caller's own class, with the same answers.

    Args:
        model: what `attach` returned, or a plain module; left untouched.
        plan: what to keep; without one a gated model decides itself.
        example: what the model is called with; needed for a plain module and to verify.
        verify: compare the answers on the example; False writes "not verified".

    Returns:
        The small model and a report.

    Raises:
        PlanError: the plan does not fit the model.
        VerificationError: the answers differ; nothing has changed.
    """
    gated = model if isinstance(model, Gated) else None
    if gated is not None and example is None:
        example = gated.example
    if example is None:
        raise PlanError(
            "prune: a model without gates needs an example: prune(model, plan, example)."
        )
    inner = gated.model if gated is not None else model
    if gated is not None:
        graph = gated.graph
        kept = gated.kept() if plan is None else planning.mask(graph, plan)
    elif plan is not None:
        graph = analyse(model, example, plan.request)
        kept = planning.mask(graph, plan)
    else:
        raise PlanError("prune: a model without gates needs a plan. Make one with vibnet.plan.")
    multipliers = gated.multipliers(kept) if gated is not None else None
    small, tensors = _cut(inner, graph, kept, multipliers)
    gap = None
    if verify:
        reference = model if plan is None else inner
        gap = compare(reference, inner, small, graph, kept, multipliers, example)
    count = tuple(sum(p.numel() for p in m.parameters()) for m in (inner, small))
    _same_modes(inner, small)
    made = planning.of_graph(graph, kept)
    widths = {
        name: int(np.where(units < 0, True, kept[units]).sum())
        for name, units in graph.widths.items()
    }
    report = Report(
        made,
        tensors,
        (count[0], count[1]),
        gap,
        bool(kept.all()),
        frozenset(graph.depthwise),
        widths,
        {k: m.in_features for k, m in small.named_modules() if isinstance(m, SelectedLinear)},
    )
    _REPORTS[small] = report
    return small, report


def report_of(small: nn.Module) -> Report | None:
    """The report of a model that `prune` returned and that still lives."""
    return _REPORTS.get(small)


def _same_modes(old: nn.Module, new: nn.Module) -> None:
    modes = {name: m.training for name, m in old.named_modules()}
    for name, module in new.named_modules():
        module.training = modes.get(name, module.training)

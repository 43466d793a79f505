"""Fold the multipliers into the weights, cut, verify: a plain smaller model."""

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from vibnet.errors import CaptureError, PlanError
from vibnet.graph import checks
from vibnet.graph.capture.capture import place_of
from vibnet.graph.capture.example import arguments, shapes
from vibnet.graph.capture.refusals import computed
from vibnet.graph.sites.branches import empty, held
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.following import eps_of
from vibnet.graph.sites.numbers import counts
from vibnet.graph.sites.stock import ready
from vibnet.graph.sites.structure import Graph, fingerprint
from vibnet.graph.trial.cut import cut
from vibnet.graph.trial.probe import analyse
from vibnet.graph.trial.restrict import restrict
from vibnet.layers import Attention, SelectedLinear, WindowAttention
from vibnet.surgery import depth
from vibnet.surgery import plan as planning
from vibnet.surgery.fold import fold
from vibnet.surgery.gated import Gated
from vibnet.surgery.layerwise import Layers
from vibnet.surgery.multiply import without_hooks
from vibnet.surgery.plan import Plan
from vibnet.surgery.verify import answers, apart, compare

_REPORTS: "WeakKeyDictionary[nn.Module, Report]" = WeakKeyDictionary()


@dataclass(frozen=True)
class Report:
    """What a cut did.

    Attributes:
        plan: the units kept, and why other sites stay whole.
        tensors: the positions kept in every dimension of every tensor that was cut.
        weights: parameters before and after.
        difference: how far the answers moved, as a part of their scale; None if not verified: it
            was not asked for, or the answers are the same for every input. Of files: how far what
            any module gives moved.
        unchanged: every unit was open, and the model is an equal copy.
        depthwise: names of depthwise weights, and `widths` of norms that hold no tensor.
        selected: linear layers that now pick their features by index, with how many, and `given`
            those that they pick from.
        shapes: of every parameter and buffer of the small model's state.
        numbers: attributes of modules that count units (heads, split sizes), with their values.
        eps: attributes of root-mean-square norms that follow their width, with their values.
        replaced: attentions that took a stock one's place.
        example: what the model was called with.
        moved: how far the answers moved beyond that, on the example, because units went that a
            statistic goes over (`allow_inexact`); None where none went, or it was not verified.
        constants: modules that have become constants, or are not needed any more, with what stands
            in their place (`remove_branches`).
        layers: what was compared, where files were verified layer by layer.
    """

    plan: Plan
    tensors: dict[str, list[list[int]]]
    weights: tuple[int, int]
    difference: float | None
    unchanged: bool
    depthwise: frozenset[str] = frozenset()
    widths: dict[str, int] = field(default_factory=dict)
    selected: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    replaced: tuple[str, ...] = ()
    given: dict[str, int] = field(default_factory=dict)
    eps: dict[str, float] = field(default_factory=dict)
    example: Any = field(default=None, repr=False, compare=False)
    moved: float | None = None
    constants: depth.Specs = field(default_factory=dict)
    layers: Layers | None = None

    def __str__(self) -> str:
        before, after = self.weights
        moved = "not verified"
        if self.difference is not None:
            moved = f"{self.layers or 'outputs'} moved by {self.difference:.1e} of their scale"
        head = "every unit is open: an equal copy" if self.unchanged else "cut"
        lines = [f"{head}: {before} -> {after} parameters, {moved}"]
        if names := ", ".join(k for k in self.plan.inexact if self.plan.cut(k)):
            how = "how far outputs moved is not known"
            if self.moved is not None:
                how = f"outputs moved by {self.moved:.1e} of their scale"
            elif self.difference is not None:
                how = "they went while it trained, and outputs moved then"
            lines.append(f"NOT EXACT: units of {names} went; {how}")
        if self.layers is not None:
            lines += self.layers.lines
        lines += [f"{k} picks its {n} features by index" for k, n in self.selected.items()]
        if self.replaced:
            lines.append(f"attentions of any number of heads: {', '.join(self.replaced)}")
        if put := {**self.numbers, **self.eps}:
            lines.append(f"set: {', '.join(f'{k} = {n:.9g}' for k, n in put.items())}")
        if self.constants:
            lines.append(f"constants now, or gone: {', '.join(self.constants)}")
        return "\n".join([*lines, str(self.plan)])


def smaller(
    inner: nn.Module, graph: Graph, kept: Mask, multipliers: Tensor | None
) -> tuple[nn.Module, dict[str, list[list[int]]]]:
    """A small copy of a model with the multipliers in its weights, and the positions kept.

    What is cut away is never copied. Of a site without a unit one is left, multiplied by zero.
    """
    kept = held(graph.sites, kept)
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
        ConfigError: no module, or an example without a tensor.
        CaptureError: the model does not run on the example.
        PlanError: a plan or an example is missing, or the plan does not fit the model.
        VerificationError: the answers differ; nothing has changed.
    """
    checks.module("prune", model)
    gated = model if isinstance(model, Gated) else None
    given = example is not None
    if gated is not None and not given:
        example = gated.example
    if example is None:
        raise PlanError(
            "prune: a model without gates needs an example: prune(model, plan, example)."
        )
    arguments(example)
    inner = gated.model if gated is not None else model
    if verify:
        _refuse_meta(inner)
    if gated is not None:
        graph = gated.graph
        kept = gated.kept() if plan is None else planning.mask(graph, plan)
    elif plan is not None:
        planning.check(plan)
        inner = ready(model, plan.request)
        planning.check(plan, fingerprint(inner))
        graph = analyse(inner, example, plan.request)
        kept = planning.mask(graph, plan)
    else:
        raise PlanError("prune: a model without gates needs a plan. Make one with vibnet.plan.")
    _refuse(inner, graph)
    if given and verify:
        _try_out(model, example)
    multipliers = gated.multipliers(kept) if gated is not None else None
    if multipliers is None and empty(graph.sites, kept):
        multipliers = torch.as_tensor(kept).double()
    small, tensors = smaller(inner, graph, kept, multipliers)
    constants = depth.removed(small, example, graph, kept)
    gap, moved = None, None
    if verify:
        reference = model if plan is None else inner
        exact, rest = exact_part(graph, kept), multipliers
        other, its = small, constants
        if (exact != kept).any():  # the exact part of the cut is verified, the rest is measured
            rest = torch.as_tensor(kept).double() if multipliers is None else multipliers
            other, _ = smaller(inner, graph, exact, rest)
            its = depth.removed(other, example, graph, exact)
        gap = compare(
            reference, inner, other, graph, exact, rest, example, partial(depth.put, specs=its)
        )
        if other is not small:
            moved = apart(other, small, example)
    count = tuple(sum(p.numel() for p in m.parameters()) for m in (inner, small))
    report = told(small, graph, kept, tensors, (count[0], count[1]), gap, example)
    numbers, eps = depth.outside(report.numbers, constants), depth.outside(report.eps, constants)
    report = replace(report, moved=moved, constants=constants, numbers=numbers, eps=eps)
    _REPORTS[small] = report
    return small, report


def _refuse_meta(inner: nn.Module) -> None:
    """Refuse a model that cannot be run."""
    if meta := [k for k, p in inner.named_parameters() if p.is_meta]:
        raise PlanError(
            f"prune: {len(meta)} tensors of {type(inner).__name__} are on the meta device "
            f"({meta[0]}, ...), so it cannot be run. Cut its files with vibnet.prune_files, or "
            f"its shapes alone with verify=False."
        )


def _refuse(inner: nn.Module, graph: Graph) -> None:
    """Refuse a model without a unit that may go, and one that cannot be copied."""
    name = type(inner).__name__
    if not graph.total:
        raise PlanError(f"prune: nothing of {name} may go. vibnet.plan(model, example) says why.")
    if found := computed(inner):
        raise PlanError(
            f"prune: {name} holds tensors of an earlier forward, which cannot be "
            f"copied: {', '.join(found)}. Delete them, or detach them when they are kept."
        )


def exact_part(graph: Graph, kept: Mask) -> Mask:
    """What would stay if the units whose going moves outputs stayed too."""
    exact = kept.copy()
    for site in graph.sites:
        if site.inexact:
            exact[site.units] = True
    return exact


def told(
    small: nn.Module,
    graph: Graph,
    kept: Mask,
    tensors: dict[str, list[list[int]]],
    count: tuple[int, int],
    gap: float | None,
    example: Any,
) -> Report:
    """The report of a cut."""
    made = planning.of_graph(graph, kept)
    unchanged, kept = bool(kept.all()), held(graph.sites, kept)
    widths = {
        name: int(np.where(units < 0, True, kept[units]).sum())
        for name, units in graph.widths.items()
    }
    return Report(
        made,
        tensors,
        count,
        gap,
        unchanged,
        frozenset(graph.depthwise),
        widths,
        {k: m.in_features for k, m in small.named_modules() if isinstance(m, SelectedLinear)},
        shapes_of(small),
        counts(graph.numbers, kept),
        tuple(k for k, m in small.named_modules() if isinstance(m, (Attention, WindowAttention))),
        {k: m.given for k, m in small.named_modules() if isinstance(m, SelectedLinear)},
        eps_of(graph.norms, kept),
        example,
    )


def _try_out(model: nn.Module, example: Any) -> None:
    """Refuse an example that a model cannot be called with."""
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    try:
        answers(model, example, next(iter(dtypes), torch.float32))
    except Exception as error:
        name = type(model.model if isinstance(model, Gated) else model).__name__
        raise CaptureError(
            f"prune: {name} does not run on the example ({shapes(example)}): {error} (at "
            f"{place_of(error)}). Pass an example that the model accepts in eval mode."
        ) from error


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in a model's state, by name."""
    state = model.state_dict()
    return {name: tuple(x.shape) for name, x in state.items() if isinstance(x, Tensor)}


def report_of(small: nn.Module) -> Report | None:
    """The report of a model that `prune` returned and that still lives."""
    return _REPORTS.get(small)

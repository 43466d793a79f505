"""Law 1 as a check: what a gated model answers in evaluation is what the small one answers."""

import copy
from dataclasses import replace

import numpy as np
import torch
from liveliness import another, lively, liveness
from torch.utils._pytree import tree_map

from vibnet import attach, prune
from vibnet.errors import NoSitesError
from vibnet.graph.sites.branches import empty
from vibnet.surgery.verify import answers, difference

LIVE, FAULT, EXACT = 1e-3, 1e-6, 1e-10


def close_units(gated, share, seed):
    """Close a share of the units of every site at random; the others get random means."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for _, gate in gated.all_gates():
            n = len(gate.mu)
            shut = torch.as_tensor(random.random(n) < share)
            gate.mu.copy_(
                torch.as_tensor(random.uniform(0.5, 1.5, n))
                * torch.as_tensor(random.choice([-1, 1], n))
            )
            gate.log_var.copy_(torch.where(shut, 5.0, -9.0))


def halved(plan):
    """Every site without half of its units."""
    source = torch.Generator().manual_seed(0)
    return replace(
        plan,
        kept={
            name: sorted(torch.randperm(size, generator=source)[: max(1, size // 2)].tolist())
            for name, size in plan.sizes.items()
        },
    )


def law_one(model, example, seed=0, tries=None, exact=EXACT, **options):
    """Check law 1 with its liveness numbers and planted faults; the share of weights cuttable.

    Options are those of `attach`; `tries` limits the readers and sites that faults are planted in;
    `exact` is looser where a model rounds inside, whatever its own type is.

    Returns None where the case does not count: no gateable site (a refusal by name), or a network
    too dead for the check to see a fault.
    """
    lively(model, example, seed)
    example = tree_map(lambda x: x.double() if x.is_floating_point() else x, example)
    try:
        gated = attach(model, example, **options)
    except NoSitesError:
        return None
    other = another(example, seed + 1)
    for gate in gated.gates.values():
        gate.mu.data.fill_(1)
    if liveness(model, example, other) < LIVE:
        return None  # a constant output: the case does not count
    identity = difference(
        answers(model, example, torch.float64), answers(gated, example, torch.float64)
    )
    assert identity <= EXACT, f"identity law: {identity}"
    for share in (0.5, 0.25, 0.1, 0.0):
        close_units(gated, share, seed)
        gated.eval()
        if liveness(gated, example, other) >= LIVE:
            break
    else:
        return None  # dead even with every unit open: the case does not count
    small, report = prune(gated)
    assert type(small) is type(model)
    reference = answers(gated, other, torch.float64)
    gap = difference(reference, answers(small, other, torch.float64))
    assert gap <= exact, f"eval differs from deployed by {gap}\n{report}"
    assert liveness(small, example, other) >= LIVE
    faults = swapped(small, gated.graph, other, tries), opened(gated, other, reference, tries)
    if min(faults) < FAULT:
        return None  # the check would not see these faults: the case does not count
    return report, small, gated


def law_of_branches(model, example, seed=0):
    """Check law 1 with whole branches closed at random; how many sites went, None for no case."""
    lively(model, example, seed)
    example = tree_map(lambda x: x.double() if x.is_floating_point() else x, example)
    try:
        gated = attach(model, example, remove_branches=True)
    except NoSitesError:
        return None
    branches = gated.graph.branches.readers
    if not branches:
        return None
    close_units(gated, 0.3, seed)
    random = np.random.default_rng(seed)
    for site, gate in gated.all_gates():
        if site.name in branches and random.random() < 0.7:
            gate.log_var.data.fill_(5.0)
    gated.eval()
    gone = empty(gated.graph.sites, gated.kept())
    small, report = prune(gated)
    other = another(example, seed + 1)
    gap = difference(*(answers(m, other, torch.float64) for m in (gated, small)))
    assert gap <= EXACT, f"eval differs from deployed by {gap}\n{report}"
    assert bool(report.constants) == bool(gone)
    return len(gone)


def swapped(small, graph, example, most=None):
    """How far the outputs move when two kept columns of one reader are swapped: the most found.

    `most` limits how many readers are tried.
    """
    right = answers(small, example, torch.float64)
    worst = 0.0
    for reader in graph.readers[:most]:
        wrong = copy.deepcopy(small)
        weight = dict(wrong.named_parameters(remove_duplicate=False))[reader.parameter]
        if weight.shape[reader.dim] < 2:
            continue
        order = torch.arange(weight.shape[reader.dim])
        order[[0, 1]] = order[[1, 0]]
        weight.data = weight.data.index_select(reader.dim, order)
        worst = max(worst, difference(right, answers(wrong, example, torch.float64)))
    return worst


def opened(gated, example, right, sites=None, units=8):
    """How far the outputs move when one closed unit stays open: the most found.

    `sites` and `units` limit how many sites, and units of each, are tried.
    """
    worst = 0.0
    kept = gated.kept()
    for site, _ in list(gated.all_gates())[:sites]:
        for unit in np.flatnonzero(~kept[site.units])[:units].tolist():
            wrong = copy.deepcopy(gated)
            with torch.no_grad():
                wrong.gate(site.name).log_var[unit] = -9
            worst = max(worst, difference(right, answers(wrong, example, torch.float64)))
    return worst


def cuttable_share(gated):
    """The share of a model's parameters that lie in rows or columns of cuttable sites."""
    total = cut = 0
    for name, value in gated.model.named_parameters():
        whole = np.ones(value.shape, dtype=bool)
        for dim, units in enumerate(gated.graph.parameters.get(name, ())):
            shape = [1] * value.ndim
            shape[dim] = -1
            whole &= (units < 0).reshape(shape)
        total += value.numel()
        cut += int((~whole).sum())
    return cut / total

"""Law 1 as a check: what a gated model answers in evaluation is what the small one answers."""

import copy

import numpy as np
import torch
from liveliness import another, lively, liveness
from torch.utils._pytree import tree_map

from vibnet import attach, prune
from vibnet.errors import NoSitesError
from vibnet.surgery.prune import answers, difference

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


def law_one(model, example, seed=0):
    """Check law 1 with its liveness numbers and planted faults; the share of weights cuttable.

    Returns None where the model has no gateable site (a refusal by name).
    """
    lively(model, example, seed)
    example = tree_map(lambda x: x.double() if x.is_floating_point() else x, example)
    try:
        gated = attach(model, example)
    except NoSitesError:
        return None
    other = another(example, seed + 1)
    for gate in gated.gates.values():
        gate.mu.data.fill_(1)
    assert liveness(model, example, other) >= LIVE
    identity = difference(
        answers(model, example, torch.float64), answers(gated, example, torch.float64)
    )
    assert identity <= EXACT, f"identity law: {identity}"
    for share in (0.5, 0.25, 0.1, 0.0):
        close_units(gated, share, seed)
        gated.eval()
        if liveness(gated, example, other) >= LIVE:
            break
    small, report = prune(gated)
    assert type(small) is type(model)
    reference = answers(gated, other, torch.float64)
    gap = difference(reference, answers(small, other, torch.float64))
    assert gap <= EXACT, f"eval differs from deployed by {gap}\n{report}"
    assert liveness(small, example, other) >= LIVE
    assert swapped(small, gated.graph, other) >= FAULT, "two swapped columns do not show"
    if gated.kept().all():
        return None  # nothing could be closed and leave the network alive: the case does not count
    assert opened(gated, other, reference) >= FAULT, "a closed unit left open does not show"
    return report, small, gated


def swapped(small, graph, example):
    """How far the outputs move when two kept columns of one reader are swapped: the most found."""
    right = answers(small, example, torch.float64)
    worst = 0.0
    for reader in graph.readers:
        wrong = copy.deepcopy(small)
        weight = dict(wrong.named_parameters(remove_duplicate=False))[reader.parameter]
        if weight.shape[reader.dim] < 2:
            continue
        order = torch.arange(weight.shape[reader.dim])
        order[[0, 1]] = order[[1, 0]]
        weight.data = weight.data.index_select(reader.dim, order)
        worst = max(worst, difference(right, answers(wrong, example, torch.float64)))
    return worst


def opened(gated, example, right):
    """How far the outputs move when one closed unit stays open: the most found."""
    worst = 0.0
    for name, gate in gated.gates.items():
        shut = torch.nonzero(gate.log_var > 0).flatten().tolist()
        for unit in shut[:2]:
            wrong = copy.deepcopy(gated)
            with torch.no_grad():
                wrong.gates[name].log_var[unit] = -9
            worst = max(worst, difference(right, answers(wrong, example, torch.float64)))
    return worst


__all__ = ["close_units", "copy", "law_one"]

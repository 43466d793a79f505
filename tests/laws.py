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
            gate.mu.copy_(torch.as_tensor(random.uniform(0.5, 1.5, n)) * torch.as_tensor(random.choice([-1, 1], n)))
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
    identity = difference(answers(model, example, torch.float64), answers(gated, example, torch.float64))
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
    return report, small, gated


__all__ = ["close_units", "copy", "law_one"]

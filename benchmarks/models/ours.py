"""What vibnet makes of a model: shares, times, law 1 with its liveness numbers, costs, ONNX."""

import copy
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from catalog import Entry
from torch import nn
from torch.utils._pytree import tree_map

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from laws import close_units, halved, opened, swapped
from liveliness import another, call, lively, liveness, scaling

import vibnet
from vibnet.cost.time import latency
from vibnet.errors import NoSitesError
from vibnet.export import to_onnx
from vibnet.graph.trial.probe import analyse
from vibnet.surgery.plan import Plan
from vibnet.surgery.verify import answers, difference

SHARE, READERS = 0.5, 3


def timed(results: dict[str, Any], name: str, work: Any) -> Any:
    """The value of a call; its processor seconds, on one thread, stand in the results."""
    start = time.process_time()
    value = work()
    results[name] = time.process_time() - start
    return value


def measure(entry: Entry, quick: bool = False) -> dict[str, Any]:
    """All figures of one model; `quick` leaves out latencies and ONNX."""
    torch.manual_seed(0)
    model, example = entry.make(), entry.example(2)
    out: dict[str, Any] = {"seconds": {}}
    plan = timed(out["seconds"], "plan", lambda: vibnet.plan(model, example, **entry.options))
    out |= {
        "sites": len(plan.kept),
        "units": sum(plan.sizes.values()),
        "cuttable": plan.cuttable,
        "ungated": plan.ungated,
        "pinned": plan.pinned,
    }
    if entry.by_plan:
        return out | by_plan(entry, model, example, plan, out["seconds"])
    try:
        gated = timed(
            out["seconds"], "attach", lambda: vibnet.attach(model, example, **entry.options)
        )
    except NoSitesError as error:
        return out | {"refused": str(error)}
    close_units(gated, SHARE, 0)
    gated.eval()
    small, _ = timed(out["seconds"], "prune", lambda: vibnet.prune(gated, verify=False))
    out["before"], out["after"] = (costs(m, example) for m in (model, small))
    out["law"] = law(entry)
    if not quick:
        out["latency"] = {str(n): [latency(m, example, n) for m in (model, small)] for n in (1, 32)}
        out["onnx"] = onnx(small, example)
    return out


def by_plan(
    entry: Entry, model: nn.Module, example: Any, plan: Plan, seconds: dict[str, float]
) -> dict[str, Any]:
    """The figures of a model that is cut without gates: what `prune` itself verifies is its law.

    `opened` is how far the answers are from those of a cut in which one unit more stays.
    """
    hooks = scaling(model)
    with torch.no_grad():
        call(model, example)
    for hook in hooks:
        hook.remove()
    half, graph = halved(plan), analyse(model, example)
    kept = half.kept
    small, _ = timed(seconds, "prune", lambda: vibnet.prune(model, half, example, verify=False))
    report = vibnet.prune(model, half, example)[1]
    right = answers(small, example, torch.float64)
    first = next(name for name, size in plan.sizes.items() if len(kept[name]) < size)
    more = next(unit for unit in range(plan.sizes[first]) if unit not in kept[first])
    other = replace(plan, kept=kept | {first: sorted([*kept[first], more])})
    wider, _ = vibnet.prune(model, other, example, verify=False)
    law = {
        "closed": SHARE,
        "live": difference(right, answers(small, entry.example(2), torch.float64)),
        "difference": report.difference,
        "swapped": swapped(small, graph, example, READERS),
        "opened": difference(right, answers(wider, example, torch.float64)),
    }
    return {"before": costs(model, example), "after": costs(small, example), "law": law}


def costs(model: nn.Module, example: Any) -> dict[str, int]:
    """Weights and multiply-adds."""
    cost = vibnet.measure(model, example)
    return {"parameters": cost.parameters, "macs": cost.macs, "attention": cost.attention_macs}


def law(entry: Entry) -> dict[str, float]:
    """Law 1 at half of all gated units closed at random; fewer where the network would be dead.

    The outputs of two examples, before and after closing, are `live` apart; `swapped` columns and
    an `opened` unit move them, tried on a few readers and sites; `difference` is what must be 0.
    """
    torch.manual_seed(0)
    model = entry.make()
    example = tree_map(lambda x: x.double() if x.is_floating_point() else x, entry.example(2))
    lively(model, example, 0)
    gated, other = vibnet.attach(model, example, **entry.options), another(example, 1)
    out = {"live_before": liveness(model, example, other)}
    for share in (SHARE, 0.25, 0.1):
        close_units(gated, share, 0)
        gated.eval()
        out |= {"closed": share, "live": liveness(gated, example, other)}
        if out["live"] >= 1e-3:
            break
    small, _ = vibnet.prune(gated, verify=False)
    reference = answers(gated, other, torch.float64)
    out["difference"] = difference(reference, answers(small, other, torch.float64))
    out["swapped"] = swapped(small, gated.graph, other, READERS)
    out["opened"] = opened(gated, other, reference, READERS, 1)
    return out


def onnx(small: nn.Module, example: Any) -> dict[str, Any]:
    """How far onnxruntime's answers are from PyTorch's, or why there is no file."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return {
                "difference": to_onnx(
                    copy.deepcopy(small), example, Path(folder) / "m.onnx"
                ).difference
            }
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {str(error)[:300]}"}

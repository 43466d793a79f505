"""What Torch-Pruning makes of a model without hints: verdict, times, costs.

The verdict compares the pruned model with a copy in which every slice that went is zero.
"""

import copy
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from catalog import Entry
from masked import EXACT, gap, zero
from torch import nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from liveliness import call, lively

import vibnet

RATIO, OUTPUT = 0.5, "an output of the model"


def measure(entry: Entry) -> dict[str, Any]:
    """The verdict on one model: exact, differs, no-op, or where it fails."""
    torch.manual_seed(0)
    model, example = entry.make(), entry.example(2)
    lively(model, example, 0)
    model.float()
    masked = copy.deepcopy(model)
    out: dict[str, Any] = {"seconds": {}, "stage": "trace"}
    try:
        ignored = _last(model, example)
        start = time.process_time()
        pruner = torch_pruning.pruner.BasePruner(
            model,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=RATIO,
            ignored_layers=ignored,
        )
        out["seconds"]["attach"] = time.process_time() - start
        out["stage"] = "prune"
        start = time.process_time()
        zeros = _Zeros(model, masked, pruner)
        for group in pruner.step(interactive=True):
            zeros.note(group)
            group.prune()
        out["seconds"]["prune"] = time.process_time() - start
        out["stage"] = "forward"
        before, after = (sum(p.numel() for p in m.parameters()) for m in (masked, model))
        zeros.apply()
        apart = gap(masked, model, example)
        if apart is None:
            return out | {"verdict": "differs (outputs of another shape)"}
    except Exception as error:
        return out | {
            "verdict": f"fails ({out['stage']})",
            "error": f"{type(error).__name__}: {str(error)[:200]}",
        }
    verdict = "exact" if apart < EXACT else "differs"
    return out | {
        "verdict": "no-op" if before == after else verdict,
        "difference": apart,
        "parameters": [before, after],
    }


def _last(model: nn.Module, example: Any) -> list[nn.Module]:
    """The layers that make the outputs of the model: a person would name these.

    Those whose own output is one, and those that vibnet's plan knows to make one, for a view or a
    pooling may come after them.
    """
    made: dict[int, nn.Module] = {}
    hooks = [
        m.register_forward_hook(
            lambda m, _, y: made.update({id(y): m}) if isinstance(y, torch.Tensor) else None
        )
        for m in model.modules()
        if not list(m.children())
    ]
    with torch.no_grad():
        output = call(model, example)
    for hook in hooks:
        hook.remove()
    tree = output.to_tuple() if hasattr(output, "to_tuple") else output
    last = [made[id(x)] for x in tree_leaves(tree) if id(x) in made]
    named = [n for n, why in vibnet.plan(model, example).pinned.items() if OUTPUT in why]
    return [*last, *(m for n, m in model.named_modules() if n in named and m not in last)]


class _Zeros:
    """Remembers which slices of the whole model go, and sets them to zero in a copy of it."""

    def __init__(self, model: nn.Module, masked: nn.Module, pruner: Any) -> None:
        self.names = {m: name for name, m in model.named_modules()}
        self.masked, self.graph = masked, pruner.DG
        self.gone: dict[str, set[int]] = {}
        self.left: dict[str, list[int]] = {}

    def note(self, group: Any) -> None:
        """The output slices that a group takes away, by their first positions."""
        for dependency, indices in group:
            layer = dependency.target.module
            name = self.names.get(layer)
            if name is None or not self.graph.is_out_channel_pruning_fn(dependency.handler):
                continue
            width = self.graph.get_out_channels(layer)
            left = self.left.setdefault(name, list(range(width)))
            taken = {left[i] for i in indices if i < len(left)}
            self.gone.setdefault(name, set()).update(taken)
            self.left[name] = [k for k in left if k not in taken]

    def apply(self) -> None:
        """Set them to zero: rows of weights, and biases."""
        for name, taken in self.gone.items():
            zero(self.masked.get_submodule(name), taken)

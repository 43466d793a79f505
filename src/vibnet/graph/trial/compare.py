"""A trial cut's calls beside those of the whole model, and what to say of a difference."""

import cmath
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from vibnet.graph.capture.capture import place_of
from vibnet.graph.capture.trace import PARTS, VIEWS, Call, Trace
from vibnet.graph.labels.rules import TABLE

NORMS = {op for op, rule in TABLE.items() if rule is TABLE["native_batch_norm"]}
PLACED = {"slice", "select", "roll"}
DROPS = {"native_dropout", "dropout"}


def places(call: Call, holds: Sequence[bool] | None) -> list[int]:
    """Numbers of positions on axes that hold no units (`holds`): on others units are compared."""
    if holds is None or call.op not in PLACED:
        return []
    if call.op != "roll":
        axis = call.args[1] if len(call.args) > 1 else 0
        return [] if holds[axis] else list(call.args[2:])
    shifts, axes = call.args[1], call.args[2] if len(call.args) > 2 else []
    return [n for n, axis in zip(shifts, axes, strict=False) if not holds[axis]]


def different(before: list[Any], after: list[Any]) -> tuple[Any, Any] | None:
    """The first numbers, or constants, that differ; constants without storage do not."""
    if len(before) != len(after):
        return before, after
    for a, b in zip(before, after, strict=True):
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            if "Fake" not in type(a).__name__ + type(b).__name__ and not torch.equal(a, b):
                return a.tolist(), b.tolist()
        elif a != b and not (cmath.isnan(a) and cmath.isnan(b)):
            return a, b
    return None


def alike(training: Trace, evaluation: Trace) -> bool:
    """Whether both modes make the same calls on the same lines, so that one trial shows both.

    Dropout and the counting of batches are made in training only.
    """

    def way(trace: Trace) -> list[tuple[str, str, str]]:
        calls = (c for c in trace.calls if c.op not in DROPS and not _counts(c))
        return [("norm" if c.op in NORMS else c.op, c.module, c.line) for c in calls]

    return way(training) == way(evaluation)


def same_calls(one: Trace, other: Trace) -> bool:
    """Whether two models make the same calls, of tensors of the same shapes, with equal numbers."""

    def told(call: Call) -> list[Any]:
        leaves = tree_leaves((call.args, call.kwargs, call.out))
        shown = [tuple(x.shape) if isinstance(x, Tensor) else x for x in leaves]
        return [call.op, call.module, *shown]

    return [told(c) for c in one.calls] == [told(c) for c in other.calls]


def _counts(call: Call) -> bool:
    """Whether a call adds one to a batch norm's number of batches."""
    return call.op == "add_" and isinstance(call.out, Tensor) and not call.out.ndim


def remedy(op: str) -> str:
    """What a person can write where a number in the code stands in the way."""
    if op in VIEWS:
        return "write x.flatten(1), or -1 or a size of x.shape, instead of the number"
    if op in PARTS:
        return "write x.chunk(n, dim), or a size of x.shape, instead of the number"
    return "take sizes from tensors (x.shape) or layers instead of writing numbers"


def failure(error: Exception, trace: Trace) -> str:
    """What to say of a trial that broke off."""
    if trace.failed is not None and trace.failed[0] is error:
        call = trace.failed[1]
        return f"after a trial cut {call} fails: {_short(error)}; {remedy(call.op)}"
    module = next((m.name for m in reversed(trace.modules) if m.output is None), "")
    op = "reshape" if "is invalid for input of size" in str(error) else ""
    where = f"{op} in {module or 'the model itself'}" if op else module or "the model itself"
    return f"after a trial cut {where} ({place_of(error)}) fails: {_short(error)}; {remedy(op)}"


def _short(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:160].removesuffix(".")

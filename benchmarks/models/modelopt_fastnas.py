"""What NVIDIA's modelopt (FastNAS) makes of a model without hints: its smallest subnet.

It is not among the packages of vibnet's tests. In a virtual environment of its own:

    python -m venv .venv-modelopt
    .venv-modelopt/bin/pip install -c constraints.txt -e '.[dev]' nvidia-modelopt==0.47.0 requests
    python benchmarks/models/survey.py --only modelopt --python .venv-modelopt/bin/python

`requests` is imported by modelopt without being asked for. No search runs. The smallest subnet of
the default search space is compared with a copy of the model in which every slice that went is
zero, as for the other tools; where that is too dead to count, the middle one is. Seconds are the
process's own, and so is the limit for an answer.
"""

import contextlib
import copy
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import modelopt.torch.nas as mtn
import torch
from catalog import Entry
from masked import EXACT, gap, zero
from modelopt.torch.nas.utils import get_subnet_config, sample
from modelopt.torch.opt.conversion import ApplyModeError
from modelopt.torch.opt.dynamic import DynamicModule
from modelopt.torch.prune.pruning import PruneModeRegistry
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from liveliness import another, call, lively, liveness, tensors

OUTPUTS = ("out_channels", "out_features", "num_features", "num_channels")
DEAD, LIMIT = "too dead to count", 120


class NoAnswer(BaseException):
    """The limit is over; no `except Exception` of modelopt may swallow it."""


def measure(entry: Entry) -> dict[str, Any]:
    """The verdict on one model: converts, refused, no answer, or where it fails."""
    torch.manual_seed(0)
    model, example = entry.make(), entry.example(2)
    lively(model, example, 0)
    out = _subnet(copy.deepcopy(model), model, example, min)
    if out.get("exact") == DEAD:
        middle = _subnet(copy.deepcopy(model), model, example, lambda x: x[len(x) // 2])
        out |= {"middle": middle, "exact": middle.get("exact", middle["verdict"])}
    return out


def _subnet(
    model: nn.Module, whole: nn.Module, example: Any, choose: Callable[[Sequence[int]], int]
) -> dict[str, Any]:
    out: dict[str, Any] = {"seconds": {}, "stage": "convert"}
    start = time.process_time()
    try:
        with _limited():
            model = mtn.convert(model, "fastnas", registry=PruneModeRegistry)
        out["seconds"]["attach"] = time.process_time() - start
        out["stage"] = "slice"
        sample(model, choose)
        out["knobs"] = len(get_subnet_config(model, True))
        with torch.no_grad():
            sliced = [x.clone() for x in tensors(call(model, example))]
        gone = _gone(model)
        out["stage"] = "export"
        start = time.process_time()
        model = mtn.export(model)
        out["seconds"]["prune"] = time.process_time() - start
        out["stage"] = "forward"
        with torch.no_grad():
            cut = tensors(call(model, example))
        out["sliced"] = max(float((a - b).abs().max()) for a, b in zip(sliced, cut, strict=True))
        out["parameters"] = [sum(p.numel() for p in m.parameters()) for m in (whole, model)]
        out |= _compared(whole, model, gone, example)
    except NoAnswer:
        return out | {"verdict": f"no answer in {LIMIT} s"}
    except ApplyModeError as error:
        return out | {"verdict": "refused", "error": str(error)[:200]}
    except Exception as error:
        return out | {
            "verdict": f"fails ({out['stage']})",
            "error": f"{type(error).__name__}: {str(error)[:200]}",
        }
    return out | {"verdict": "converts", "exact": _exact(out)}


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise NoAnswer

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _gone(model: nn.Module) -> dict[str, list[int]]:
    """The output slices that the chosen subnet leaves out, by the layers' names."""
    gone = {}
    for name, layer in model.named_modules():
        if isinstance(layer, DynamicModule):
            for key, width in layer.named_hparams():
                if key in OUTPUTS:
                    kept = set(torch.arange(width.max)[width.active_slice].tolist())
                    gone[name] = [k for k in range(width.max) if k not in kept]
    return gone


def _compared(
    whole: nn.Module, model: nn.Module, gone: dict[str, list[int]], example: Any
) -> dict[str, Any]:
    """How far the subnet is from the masked model, and what makes that number count.

    The outputs of two examples are `live` apart, and `opened` is how far it is from a masked model
    in which one slice of every layer was forgotten.
    """
    masked = copy.deepcopy(whole)
    for name, taken in gone.items():
        zero(masked.get_submodule(name), taken[1:])
    opened = gap(masked, model, example)
    for name, taken in gone.items():
        zero(masked.get_submodule(name), taken)
    return {
        "live": liveness(model, example, another(example, 1)),
        "opened": opened,
        "difference": gap(masked, model, example),
    }


def _exact(out: dict[str, Any]) -> str:
    if out["difference"] is None:
        return "differs (outputs of another shape)"
    if out["live"] < 1e-3 or out["opened"] < 1e-6:
        return DEAD
    return "exact" if out["difference"] < EXACT else "differs"

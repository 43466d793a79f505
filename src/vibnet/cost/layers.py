"""Where the time of a forward goes, layer by layer, and how much of it cutting could save."""

import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from vibnet.cost.time import timing
from vibnet.graph.sites.prices import by_layer
from vibnet.graph.sites.structure import Graph
from vibnet.graph.trial.probe import analyse

REST = "(outside of layers)"


@dataclass(frozen=True)
class Layer:
    """One layer: a module without modules in it.

    Attributes:
        name: Dotted name of the module.
        kind: Its class.
        weights: Of its convolution or product; 0 for others.
        macs: Multiply-adds of it, an example.
        cuttable: The share of those in rows and columns that sites can give up, 0 to 1.
        seconds: Of wall time in one forward, over all calls of the layer; the median.
    """

    name: str
    kind: str
    weights: int
    macs: float
    cuttable: float
    seconds: float


def layers(
    model: nn.Module,
    example: Any,
    *,
    batch: int = 1,
    threads: int | None = None,
    seconds: float = 0.5,
    graph: Graph | None = None,
) -> list[Layer]:
    """The layers of a model in the order of their first calls, with what each costs.

    The last row is the time outside of layers: what forwards compute themselves.

    Args:
        model: Any module, in eval mode while it is timed; left as it was.
        example: What it is called with; its first row is repeated.
        batch: Rows to run on.
        threads: Threads of PyTorch while timing; as they are where not given.
        seconds: For how long to repeat the forward, after a warm-up; at least three times.
        graph: What is known of the model, where it has been looked at already.

    Raises:
        ConfigError: Batch, threads or seconds are not positive.
        CaptureError: The model does not run on the example.
    """
    found = by_layer(graph or analyse(model, example))
    names = {module: name for name, module in model.named_modules()}
    leaves = [module for module in names if not any(True for _ in module.children())]
    took: dict[str, list[float]] = {}
    now: dict[str, float] = defaultdict(float)
    began: list[float] = []
    whole: list[float] = []
    handles = []
    with timing(model, example, batch, threads, seconds) as (forward, wait):

        def enter(_module: nn.Module, _args: Any) -> None:
            wait()
            began.append(time.perf_counter())

        def leave(module: nn.Module, _args: Any, _output: Any) -> None:
            wait()
            now[names[module]] += time.perf_counter() - began.pop()

        try:
            for module in leaves:
                handles.append(module.register_forward_pre_hook(enter))
                handles.append(module.register_forward_hook(leave))
            forward()
            end = time.perf_counter() + seconds
            while len(whole) < 3 or time.perf_counter() < end:
                now.clear()
                start = time.perf_counter()
                forward()
                wait()
                whole.append(time.perf_counter() - start)
                for name, value in now.items():
                    took.setdefault(name, []).append(value)
        finally:
            for handle in handles:
                handle.remove()
    kinds = {name: type(module).__name__ for module, name in names.items()}
    out = [
        Layer(name, kinds[name], *found.get(name, (0, 0.0, 0.0)), statistics.median(times))
        for name, times in took.items()
    ]
    outside = max(0.0, statistics.median(whole) - sum(layer.seconds for layer in out))
    other = [name for name in found if name not in took]
    macs = sum(found[name][1] for name in other)
    saved = sum(found[name][1] * found[name][2] for name in other)
    weights = sum(found[name][0] for name in other)
    return [*out, Layer(REST, "", weights, macs, saved / macs if macs else 0.0, outside)]


def cuttable_time(found: Sequence[Layer]) -> float:
    """The share of a forward's time in rows and columns that sites can give up, 0 to 1.

    A layer's time counts by the share of its multiply-adds; layers without any do not count.
    """
    total = sum(layer.seconds for layer in found)
    saved = np.dot([layer.seconds for layer in found], [layer.cuttable for layer in found])
    return float(saved) / total if total else 0.0

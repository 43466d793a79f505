"""What a model costs: weights, multiply-adds, neurons, memory and time, by the paper's rules."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vibnet.cost.flow import Flow, count, peak
from vibnet.cost.time import latency as seconds
from vibnet.errors import ConfigError
from vibnet.graph import checks
from vibnet.graph.capture.capture import capture


@dataclass(frozen=True)
class Cost:
    """The costs of one model, per example.

    Args:
        weights: Conv and linear weights, no biases and no norms; a shared one once.
        macs: Multiply-adds of convolutions and of products with a stored weight. Padding counts.
        attention_macs: Multiply-adds of products of two activations.
        neurons: The N of r_N: outputs of conv and linear calls but logits, of poolings, and of
            declared sites.
        parameters: All parameters.
        bytes: Of parameters and buffers.
        peak_memory: ``bytes`` and the most bytes of activations alive at once, at batch 1.
        latency: Median seconds of a forward at batch 1 and at batch 32, where measured.

    Source:
        Dai et al. 2018, tables 1 to 3.
    """

    weights: int
    macs: int
    attention_macs: int
    neurons: int
    parameters: int
    bytes: int
    peak_memory: int
    latency: tuple[float, float] | None = None

    def __str__(self) -> str:
        names = ("weights", "macs", "attention_macs", "neurons", "parameters", "bytes")
        rows = [(n.replace("_", " "), f"{getattr(self, n):,}") for n in (*names, "peak_memory")]
        for batch, took in zip((1, 32), self.latency or (), strict=False):
            rows.append((f"ms at batch {batch}", f"{1000 * took:.3f}"))
        return "\n".join(f"{name:<14} {value:>15}" for name, value in rows)


@dataclass(frozen=True)
class Ratios:
    """A small model against its base, as the paper's tables print it.

    Args:
        weights: r_W, in percent of the base.
        macs: Multiply-adds of the small model.
        neurons: r_N, in percent of the base.
    """

    weights: float
    macs: int
    neurons: float

    def __str__(self) -> str:
        millions = self.macs / 1e6
        return f"r_W {self.weights:.2f} %, {millions:.3f} M macs, r_N {self.neurons:.2f} %"


def ratios(small: Cost, base: Cost) -> Ratios:
    """r_W, multiply-adds and r_N of a small model; both must be measured with one declaration.

    Raises:
        ConfigError: The base has no weights or no neurons.
    """
    if not base.weights or not base.neurons:
        raise ConfigError("base has no weights or no neurons. Pass the cost of the uncut model.")
    share = 100 * small.weights / base.weights
    return Ratios(share, small.macs, 100 * small.neurons / base.neurons)


def measure(
    model: nn.Module, example: Any, *,
    inputs: bool = False, features: Iterable[str] = (), latency: bool = False
) -> Cost:  # fmt: skip
    """The costs of one eval forward per example; products that no input reaches are left out.

    Args:
        model: Any module; it is left untouched.
        example: A batch of any size, as you would pass it to the model.
        inputs: The model's input counts as neurons too: of a pruned model, the part it picks.
        features: Names of linear modules whose input features count as neurons too.
        latency: Take the time as well.

    Raises:
        ConfigError: No module, a name in ``features`` that is not that of a linear module, or
            ``inputs`` or ``latency`` neither True nor False.
        CaptureError: The model does not run on the example.
    """
    checks.module("measure", model)
    for name, value in (("inputs", inputs), ("latency", latency)):
        checks.flag(f"measure: {name}", value)
    declared = _declared(model, checks.names("measure: features", features))
    trace = capture(model, example)[1]
    flow = Flow(trace)
    for call in trace.calls:
        count(flow, call)
    entered = flow.entered(model) if inputs else 0
    held = {id(x): x for x in (*model.parameters(), *model.buffers())}
    stored = sum(x.numel() * x.element_size() for x in held.values())
    return Cost(
        weights=flow.weights(),
        macs=flow.macs // flow.batch,
        attention_macs=flow.attention // flow.batch,
        neurons=declared + (flow.neurons + entered) // flow.batch,
        parameters=sum(x.numel() for x in model.parameters()),
        bytes=stored,
        peak_memory=stored + peak(flow),
        latency=(seconds(model, example, 1), seconds(model, example, 32)) if latency else None,
    )


def _declared(model: nn.Module, names: Iterable[str]) -> int:
    linear = {n: m.in_features for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for name in names:
        if name not in linear:
            raise ConfigError(
                f"features names {name!r}, which is no linear module of {type(model).__name__}. "
                f"There are: {', '.join(linear) or 'none'}."
            )
    return sum(linear[name] for name in set(names))

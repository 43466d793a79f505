"""Time of `vibnet.plan` against the depth of a network: the exponent must be 1."""

import argparse
import gc
import math
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib as mpl
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host, interleaved, seconds, summary, write

import vibnet

mpl.use("svg")
import matplotlib.pyplot as plt


class Block(nn.Module):
    """A residual block of two layers, normalised and rectified in between."""

    def __init__(self, layer: Callable[[], nn.Module], norm: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.first, self.norm, self.second = layer(), norm(), layer()

    def forward(self, x: Tensor) -> Tensor:
        """The input plus what the branch makes of it."""
        out: Tensor = x + self.second(self.norm(self.first(x)).relu())
        return out


def mlp(layers: int, width: int = 8) -> tuple[nn.Module, Tensor]:
    """A residual network of fully connected layers whose stream can be cut, and an example."""
    linear, norm = partial(nn.Linear, width, width), partial(nn.BatchNorm1d, width)
    blocks = [Block(linear, norm) for _ in range(layers // 2)]
    return nn.Sequential(linear(), *blocks, nn.Linear(width, 10)), torch.randn(4, width)


def cnn(layers: int, width: int = 8) -> tuple[nn.Module, Tensor]:
    """A residual network of convolutions whose stream can be cut, and an example."""
    conv = partial(nn.Conv2d, width, width, 3, padding=1)
    blocks = [Block(conv, partial(nn.BatchNorm2d, width)) for _ in range(layers // 2)]
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    return nn.Sequential(conv(), *blocks, *head), torch.randn(4, width, 8, 8)


def exponent(depths: list[int], times: list[float]) -> float:
    """The slope of the least-squares line through the points, both axes in logarithms."""
    xs, ys = [math.log(d) for d in depths], [math.log(t) for t in times]
    return statistics.linear_regression(xs, ys).slope


def plan(model: nn.Module, example: Tensor) -> float:
    """Seconds of one plan; what earlier ones left behind is collected first."""
    gc.collect()
    return seconds(lambda: vibnet.plan(model, example))


def main() -> None:
    """Measure, fit, write the JSON and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=[250, 500, 1000, 2000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    result = {"settings": vars(chosen), "host": host(chosen.threads), "families": {}}
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for name, make in {"mlp": mlp, "cnn": cnn}.items():
        works = {str(n): partial(plan, *make(n)) for n in chosen.depths}
        works = {"warm-up": partial(plan, *make(20)), **works}
        samples = interleaved(works, 0, chosen.rounds)
        del samples["warm-up"]
        medians = [statistics.median(times) for times in samples.values()]
        slope = exponent(chosen.depths, medians)
        result["families"][name] = {
            "exponent": slope,
            "summary": summary(samples),
            "samples_seconds": samples,
        }
        axes.loglog(chosen.depths, medians, "o-", label=f"{name}: depth^{slope:.2f}")
        print(f"{name}: exponent {slope:.3f}, medians {[round(t, 2) for t in medians]} s")
    axes.set(xlabel="layers", ylabel="seconds of vibnet.plan", xticks=chosen.depths)
    axes.set_xticklabels([str(n) for n in chosen.depths])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(write("depth", result).with_suffix(".svg"))


if __name__ == "__main__":
    main()

"""A training step with gates and penalty against one without, on the paper's networks.

On one thread: steps of a millisecond on several threads mostly measure how these wait for each
other while anything else runs on the host.
"""

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host, interleaved, seconds, summary, write

import vibnet
from vibnet.zoo import VGG, LeNet5Caffe, LeNet300100

GAMMA = 1e-5
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int, float]] = {
    # name: model, shape of an image, images a step, largest ratio
    "LeNet-300-100": (LeNet300100, (784,), 100, 1.6),
    "LeNet-5": (LeNet5Caffe, (1, 28, 28), 100, 1.1),
    "VGG-16": (partial(VGG, "D6", 10), (3, 32, 32), 32, 1.1),
}


def step(model: nn.Module, groups: Any, x: Tensor, y: Tensor, gamma: float | None) -> Any:
    """A training step: forward, loss, backward, fused Adam; with a penalty if gamma is given."""
    model.train()
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)

    def once() -> float:
        def work() -> None:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            if gamma is not None:
                loss = loss + vibnet.penalty(model, gamma)
            loss.backward()
            optimizer.step()

        return seconds(work)

    return once


def measure(name: str, warm_up: int, rounds: int) -> dict[str, Any]:
    """One network: both steps and, as the floor of the difference, the noise alone, in turn."""
    make, shape, batch, limit = CASES[name]
    torch.manual_seed(0)
    model = make()
    x, y = torch.randn(batch, *shape), torch.randint(10, (batch,))
    gated = vibnet.attach(model, x)
    dense = copy.deepcopy(model)
    units = sum(site.size for site in gated.sites)
    works = {
        "dense": step(dense, dense.parameters(), x, y, None),
        "gated": step(gated, vibnet.parameter_groups(gated, 1e-3, 1e-3), x, y, GAMMA),
        "noise": lambda: seconds(lambda: torch.randn(batch, units)),
    }
    samples = interleaved(works, warm_up, rounds)
    median = {name: statistics.median(values) for name, values in samples.items()}
    ratio = median["gated"] / median["dense"]
    floor = 1 + median["noise"] / median["dense"]
    print(
        f"{name}: dense {1e3 * median['dense']:.2f} ms, gated {1e3 * median['gated']:.2f} ms, "
        f"ratio {ratio:.3f} (at most {limit}; drawing the noise alone makes it {floor:.3f})"
    )
    return {
        "batch": batch,
        "units": units,
        "ratio": ratio,
        "limit": limit,
        "met": ratio <= limit,
        "floor_ratio_of_the_noise_alone": floor,
        "summary": summary(samples),
        "samples_seconds": samples,
    }


def main() -> None:
    """Measure every network and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--warm-up", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    chosen = parser.parse_args()
    facts = host(chosen.threads)
    cases = {name: measure(name, chosen.warm_up, chosen.rounds) for name in chosen.only}
    settings = {**vars(chosen), "gamma": GAMMA, "optimizer": "Adam(fused=True)"}
    write("gated_step", {"settings": settings, "host": facts, "cases": cases})


if __name__ == "__main__":
    main()

"""Attach, plan and prune of a ResNet-50, against a copy and a magnitude cut by Torch-Pruning."""

import argparse
import copy
import gc
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host, interleaved, seconds, summary, write

import vibnet

LIMIT_RATIO, LIMIT_SECONDS = 2.0, 3.0


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels a side, added to a shortcut.

    Source:
        He et al. 2016, arXiv 1512.03385, figure 5; the stride is in the middle.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.branch = nn.Sequential(
            *_conv(inputs, width, 1),
            nn.ReLU(),
            *_conv(width, width, 3, stride),
            nn.ReLU(),
            *_conv(width, outputs, 1),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else _conv(inputs, outputs, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, rectified."""
        out: Tensor = (self.branch(x) + self.shortcut(x)).relu()
        return out


class ResNet50(nn.Module):
    """The residual network of 50 layers for images of 224 pixels a side."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            width = 64 * 2**stage
            for block in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``."""
        logits: Tensor = self.fc(self.blocks(self.stem(x)).mean((2, 3)))
        return logits


def ours(model: nn.Module, example: Tensor, verify: bool, parts: dict[str, list[float]]) -> float:
    """Seconds of attach, plan and prune with half of the units closed; closing is not counted."""
    gc.collect()
    kept: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> float:
        def call() -> None:
            kept[name] = work()

        parts.setdefault(name, []).append(seconds(call))
        return parts[name][-1]

    total = timed("attach", lambda: vibnet.attach(model, example))
    gated = kept["attach"]
    with torch.no_grad():
        for _, gate in gated.all_gates():
            gate.log_var[torch.randperm(len(gate.log_var))[::2]] = 9.0
    total += timed("plan", lambda: vibnet.plan(gated))
    name = "prune, verified" if verify else "prune, not verified"
    total += timed(name, lambda: vibnet.prune(gated, verify=verify))
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, kept[name][0]))
    assert after < 0.5 * before
    return total


def theirs(model: ResNet50, example: Tensor) -> float:
    """Seconds of a copy, a trace and a cut of half of the channels with Torch-Pruning."""
    gc.collect()

    def work() -> None:
        copied = copy.deepcopy(model)
        torch_pruning.pruner.MagnitudePruner(
            copied,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[copied.fc],
        ).step()

    return seconds(work)


def main() -> None:
    """Measure the three in turn and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pixels", type=int, default=224)
    chosen = parser.parse_args()
    facts = host(chosen.threads)
    torch.manual_seed(0)
    model, example = ResNet50().eval(), torch.randn(1, 3, chosen.pixels, chosen.pixels)
    parts: dict[str, list[float]] = {}
    works = {
        "vibnet, not verified": partial(ours, model, example, False, parts),
        "torch-pruning": partial(theirs, model, example),
        "vibnet, verified": partial(ours, model, example, True, parts),
    }
    samples = interleaved(works, chosen.warm_up, chosen.rounds)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    ratio = medians["vibnet, not verified"] / medians["torch-pruning"]
    result = {
        "settings": vars(chosen),
        "host": facts,
        "ratio": ratio,
        "met": {
            f"ratio <= {LIMIT_RATIO}": ratio <= LIMIT_RATIO,
            f"verified < {LIMIT_SECONDS} s": medians["vibnet, verified"] < LIMIT_SECONDS,
        },
        "summary": summary(samples),
        "samples_seconds": samples,
        "parts_seconds_with_warm_up": parts,
    }
    print({name: round(value, 3) for name, value in medians.items()}, f"ratio {ratio:.2f}")
    print({name: round(statistics.median(values), 3) for name, values in parts.items()})
    write("engine", result)


if __name__ == "__main__":
    main()

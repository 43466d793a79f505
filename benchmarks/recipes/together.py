"""Many settings of `table1-vibnet` at once, held out: one batched network, one JSON a setting.

    python benchmarks/recipes/together.py --seeds 0 1 2 --set gamma=4e-4,6e-4 --set ema=0.999

What a step costs beside its products is paid once for all runs. The objective and the schedules are
those of `vibnet.fit`, the order of the images is shared by all runs and the random numbers are
others: what is found here is a hint, which `seeds.py` has to confirm. Dense networks are kept in
--work.
"""

import argparse
import itertools
import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vibnet.config import Settings
from vibnet.recipes.catalog import recipe
from vibnet.recipes.images import Images
from vibnet.train.schedule import rate, rise
from vibnet.zoo.networks import LeNet300100

sys.path.insert(0, str(Path(__file__).parents[1]))
from common import host

RESULTS = Path(__file__).parent / "results" / "together"
WIDTHS = (784, 300, 100)
HELD = 10_000
DENSE = ("seed", "dense_epochs", "batch", "lr", "weight_decay", "ema", "dense_schedule")
LEFT_OUT = 5  # epochs between two looks at what is dead


class Nets:
    """Networks of one shape, weights ``(runs, in, out)``, gates ``(runs, 1, units)``."""

    def __init__(self, tensors: dict[str, Tensor], gated: bool) -> None:
        self.tensors = tensors
        self.gated = gated
        self.average = {k: v.detach().clone() for k, v in tensors.items()}

    def __call__(self, x: Tensor, tensors: dict[str, Tensor], noisy: bool) -> Tensor:
        """Logits ``(runs, batch, 10)`` of inputs ``(runs, batch, inputs)``."""
        h = x
        for i in range(3):
            if self.gated:
                h = h * self.multipliers(i, tensors, h, noisy)
            h = torch.baddbmm(tensors[f"b{i}"], h, tensors[f"w{i}"])
            h = F.relu(h) if i < 2 else h
        return h

    def multipliers(self, i: int, tensors: dict[str, Tensor], h: Tensor, noisy: bool) -> Tensor:
        """What the units of a site are multiplied with."""
        mu, log_var = tensors[f"mu{i}"], tensors[f"v{i}"]
        if noisy:
            return torch.addcmul(mu, torch.randn_like(h), torch.exp(0.5 * log_var))
        return mu * (mu.square() > log_var.exp())

    def rates(self, prices: Tensor) -> Tensor:
        """The priced nats of every run."""
        parts = []
        for i in range(3):
            mu, log_var = self.tensors[f"mu{i}"], self.tensors[f"v{i}"]
            parts.append(torch.log1p(mu.square() * torch.exp(-log_var)).sum((1, 2)) * prices[:, i])
        return 0.5 * torch.stack(parts).sum(0)


class Adam:
    """Adam over tensors whose first axis counts runs, with rates that differ between them."""

    def __init__(
        self, tensors: dict[str, Tensor], rates: Tensor, gate: Tensor, decay: Tensor
    ) -> None:
        self.m = {k: torch.zeros_like(v) for k, v in tensors.items()}
        self.v = {k: torch.zeros_like(v) for k, v in tensors.items()}
        self.rates, self.gate, self.decay, self.steps = rates, gate, decay, 0

    @torch.no_grad()
    def step(self, tensors: dict[str, Tensor], factor: float) -> None:
        """One step with the rates times a factor."""
        self.steps += 1
        first, second = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        for key, value in tensors.items():
            gradient = value.grad
            assert gradient is not None
            rates = self.gate
            if key[0] in "wb":
                rates = self.rates
                gradient = torch.addcmul(gradient, value, self.decay)
            self.m[key].lerp_(gradient, 0.1)
            self.v[key].mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            scale = self.v[key].sqrt().div_(math.sqrt(second)).add_(1e-8)
            value.addcmul_(self.m[key] / scale, rates, value=-factor / first)
            value.grad = None


def dense_start(seed: int) -> dict[str, Tensor]:
    """Weights as torch starts them."""
    torch.manual_seed(seed)
    model = LeNet300100()
    out = {}
    for i, layer in enumerate((model.fc1, model.fc2, model.fc3)):
        out[f"w{i}"] = layer.weight.detach().T.clone()
        out[f"b{i}"] = layer.bias.detach()[None].clone()
    return out


def column(runs: list[Settings], name: str) -> Tensor:
    """A setting of all runs, ``(runs, 1, 1)``."""
    return torch.tensor([getattr(s, name) for s in runs])[:, None, None]


def errors(nets: Nets, tensors: dict[str, Tensor], batches: Any, pixels: Tensor | None) -> Tensor:
    """Percent of wrong answers of every run, with gates at their means."""
    wrong, count = torch.zeros(len(tensors["b0"])), 0
    with torch.no_grad():
        for x, y in batches:
            logits = nets(given(x.flatten(1), pixels, len(wrong)), tensors, noisy=False)
            wrong += (logits.argmax(2) != y).sum(1)
            count += len(y)
    return 100 * wrong / count


def given(x: Tensor, pixels: Tensor | None, runs: int) -> Tensor:
    """The inputs of every run."""
    if pixels is None:
        return x.expand(runs, *x.shape)
    return x.T[pixels].transpose(1, 2)


def train(
    nets: Nets, runs: list[Settings], data: Images, epochs: int, prices: Tensor
) -> tuple[Tensor | None, list[dict[str, Any]]]:
    """All epochs of a phase, in place; the pixels that are left in every run, and a history."""
    first = runs[0]
    schedule = first.gate_schedule if nets.gated else first.dense_schedule
    decay = column(runs, "weight_decay")
    adam = Adam(nets.tensors, column(runs, "lr"), column(runs, "gate_lr"), decay)
    gamma, share = column(runs, "gamma").flatten(), [s.gamma_rise for s in runs]
    keep, pixels, history = 1 - column(runs, "ema"), None, []
    for epoch in range(epochs):
        begin = time.monotonic()
        for step, (x, y) in enumerate(
            data.train(epoch + (first.dense_epochs if nets.gated else 0))
        ):
            progress = (epoch + step / data.steps) / epochs
            logits = nets(given(x.flatten(1), pixels, len(runs)), nets.tensors, noisy=True)
            labels = y.repeat(len(runs))
            loss = F.cross_entropy(logits.flatten(0, 1), labels, reduction="sum") / len(y)
            if nets.gated:
                now = gamma * torch.tensor([rise(r, progress) for r in share])
                loss = loss + (now * nets.rates(prices)).sum()
            loss.backward()
            adam.step(nets.tensors, rate(schedule, progress))
            with torch.no_grad():
                for key, value in nets.tensors.items():
                    nets.average[key].lerp_(value, keep)
        if nets.gated and (epoch + 1) % LEFT_OUT == 0:
            pixels = compact(nets, adam, pixels)
        if (epoch + 1) % 25 == 0 or epoch + 1 == epochs:
            wrong = errors(nets, nets.average, data.validation(), pixels)
            history.append({"epoch": epoch + 1, "validation": wrong.tolist()})
            shape = [tuple(v.shape) for k, v in nets.tensors.items() if k[0] == "w"]
            took = time.monotonic() - begin
            print(
                epoch + 1, [round(w, 2) for w in wrong.tolist()], shape, f"{took:.1f} s", flush=True
            )
    return pixels, history


@torch.no_grad()
def compact(nets: Nets, adam: Adam, pixels: Tensor | None) -> Tensor:
    """Leave out the units that are dead in all runs; every run keeps as many as the widest."""
    tables = (nets.tensors, nets.average, adam.m, adam.v)
    for i in range(3):
        scores = [2 * t[f"mu{i}"].abs().log() - t[f"v{i}"] for t in tables[:2]]
        score = torch.maximum(*scores).squeeze(1)
        widest = int((score > -math.log(2)).sum(1).max())
        stay = score.topk(max(widest, 1), 1).indices.sort(1).values
        if i == 0:
            pixels = stay if pixels is None else pixels.gather(1, stay)
        for table in tables:
            for key in (f"mu{i}", f"v{i}"):
                table[key] = pick(table[key], stay, 2)
            table[f"w{i}"] = pick(table[f"w{i}"], stay, 1)
            if i:
                table[f"w{i - 1}"] = pick(table[f"w{i - 1}"], stay, 2)
                table[f"b{i - 1}"] = pick(table[f"b{i - 1}"], stay, 2)
    for key, value in nets.tensors.items():
        nets.tensors[key] = value.detach().requires_grad_()
    assert pixels is not None
    return pixels


def pick(value: Tensor, stay: Tensor, axis: int) -> Tensor:
    """The units that stay, another choice in every run."""
    shape = list(value.shape)
    shape[axis] = stay.shape[1]
    index = stay[:, :, None] if axis == 1 else stay[:, None, :]
    return value.gather(axis, index.expand(shape)).contiguous()


def stacked(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Runs side by side, ready to train."""
    return {k: torch.stack([p[k] for p in parts]).requires_grad_() for k in parts[0]}


def dense(runs: list[Settings], data: Images, work: Path) -> list[dict[str, Tensor]]:
    """The averaged weights after the dense phase, trained once for a seed and its settings."""
    work.mkdir(parents=True, exist_ok=True)
    files = [work / f"{'-'.join(str(getattr(s, n)) for n in DENSE)}.pt" for s in runs]
    missing = {f: s for f, s in zip(files, runs, strict=True) if not f.exists()}
    if missing:
        of = list(missing.values())
        nets = Nets(stacked([dense_start(s.seed) for s in of]), gated=False)
        train(nets, of, data, of[0].dense_epochs, torch.zeros(len(of), 3))
        for i, file in enumerate(missing):
            torch.save({k: v[i].clone() for k, v in nets.average.items()}, file)
    return [torch.load(f) for f in files]


def write(
    nets: Nets, runs: list[Settings], prices: Tensor, history: list[Any], names: list[str]
) -> None:
    """One JSON a run."""
    open_units = torch.stack(
        [
            (nets.average[f"mu{i}"].square() > nets.average[f"v{i}"].exp()).sum((1, 2))
            for i in range(3)
        ]
    ).T
    RESULTS.mkdir(parents=True, exist_ok=True)
    for i, (settings, name) in enumerate(zip(runs, names, strict=True)):
        a, b, c = open_units[i].tolist()
        weights = a * b + b * c + c * 10
        body = {
            "setting": name,
            "seed": settings.seed,
            "prices": prices[i].tolist(),
            "kept": [a, b, c],
            "r_W": 100 * weights / 266_200,
            "r_N": 100 * (a + b + c) / 1184,
            "validation": history[-1]["validation"][i],
            "history": [[h["epoch"], h["validation"][i]] for h in history],
        }
        path = RESULTS / f"{name},seed={settings.seed}.json"
        path.write_text(json.dumps(body) + "\n")
        print(
            name,
            settings.seed,
            [a, b, c],
            f"r_W {body['r_W']:.2f} r_N {body['r_N']:.2f}",
            f"validation {body['validation']:.2f}",
            flush=True,
        )


def main() -> None:
    """All combinations of the settings, with all seeds, in one network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE,VALUE")
    parser.add_argument("--prices", nargs="+", default=["1:1.5:0.8"], metavar="INPUTS:FC1:FC2")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "vibnet-dense")
    asked = parser.parse_args()
    host(1)
    torch.set_flush_denormal(True)
    table1 = recipe("table1-vibnet")
    choices = [
        [(k, v) for v in vs.split(",")] for k, _, vs in (s.partition("=") for s in asked.set)
    ]
    runs, prices, names = [], [], []
    for *changes, price in itertools.product(*choices, asked.prices):
        for seed in asked.seeds:
            runs.append(table1.settings.replaced(**{**dict(changes), "seed": seed}))
            prices.append([float(p) for p in price.split(":")])
            names.append(",".join([*(f"{k}={v}" for k, v in changes), f"prices={price}"]))
    data = Images("mnist", runs[0].batch, validation=HELD, seed=min(asked.seeds))
    starts = dense(runs, data, asked.work)
    torch.manual_seed(min(asked.seeds))
    for start in starts:
        for i, width in enumerate(WIDTHS):
            start[f"mu{i}"] = 1 + 0.01 * torch.randn(1, width)
            start[f"v{i}"] = -9 + 0.01 * torch.randn(1, width)
    nets = Nets(stacked(starts), gated=True)
    priced = torch.tensor(prices)
    _, history = train(nets, runs, data, runs[0].gate_epochs, priced)
    write(nets, runs, priced, history, names)


if __name__ == "__main__":
    main()

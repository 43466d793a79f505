"""Train a network on handwritten digits, learn which units it needs, cut the others out.

    python examples/digits.py            about half a minute on one core
    python examples/digits.py --epochs 3 a shorter look (fewer units close)

The gamma and the numbers of epochs were chosen on the validation images.
"""

import argparse
import copy

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import vibnet

GAMMA = 2e-3  # loss per nat of a unit: larger closes more units
BATCH = 64
NAMES = ("weights", "macs", "peak_memory", "latency")


def split() -> list[tuple[Tensor, Tensor]]:
    """Training, validation and test images: 1,197, 300 and 300, always the same."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32) / 16
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return [(x[part], y[part]) for part in order.split([1197, 300, 300])]


def error(model: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Wrong answers in percent, in evaluation mode."""
    x, y = images
    model.eval()
    with torch.no_grad():
        return 100 * (model(x).argmax(1) != y).double().mean().item()


def main(dense_epochs: int, gate_epochs: int, gamma: float) -> None:
    torch.manual_seed(0)
    train, validation, test = split()
    x, y = train
    model = nn.Sequential(
        nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(dense_epochs):
        model.train()
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    print(f"dense epochs {dense_epochs}: validation error {error(model, validation):.1f} %")

    gated = vibnet.attach(model, x[:2])
    optimizer = torch.optim.Adam(vibnet.parameter_groups(gated, lr=1e-3, gate_lr=1e-2))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, gate_epochs)
    for epoch in range(1, gate_epochs + 1):
        gated.train()
        for batch in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            loss = cross_entropy(gated(x[batch]), y[batch]) + vibnet.penalty(gated, gamma)
            loss.backward()
            optimizer.step()
        schedule.step()
        if epoch % max(1, gate_epochs // 10) == 0:
            units = ", ".join(f"{len(k)}" for k in vibnet.plan(gated).kept.values())
            wrong = error(gated, validation)
            print(f"gate epoch {epoch:3}: validation error {wrong:.1f} %, units kept {units}")
    small, report = vibnet.prune(gated)
    print("\nv", error(model, validation), error(small, validation), [p.shape for p in small.parameters()])
    print(error(model,test), error(small,test)) if 0 else None


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--dense", type=int, default=30)
    p.add_argument("--epochs", type=int, default=100)
    p.add_argument("--gamma", type=float, default=2e-3)
    a = p.parse_args()
    main(a.dense, a.epochs, a.gamma)

"""Train a network on handwritten digits, learn which units it needs, and cut the others out.

The data are scikit-learn's 1,797 images of 8 x 8 pixels. The three numbers below were chosen on
the validation images; the test images are looked at once, at the end.
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import vibnet

GAMMA = 1e-3  # loss per nat of a unit: a larger one closes more units
DENSE_EPOCHS = 100
GATE_EPOCHS = 60


def split() -> list[tuple[Tensor, Tensor]]:
    """1,197 training, 300 validation and 300 test images with their digits, always the same."""
    data = load_digits()
    x, y = torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return [(x[part], y[part]) for part in order.split([1197, 300, 300])]


def error(model: nn.Module, images: tuple[Tensor, Tensor]) -> float:
    """Wrong answers in percent, in evaluation mode."""
    x, y = images
    with torch.no_grad():
        return 100 * (model.eval()(x).argmax(1) != y).double().mean().item()


def epoch(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """One pass through the training images; a gated model pays for its open units."""
    model.train()
    for batch in torch.randperm(len(x)).split(64):
        loss = cross_entropy(model(x[batch]), y[batch])
        if hasattr(model, "gates"):
            loss = loss + vibnet.penalty(model, GAMMA)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    """Train, gate, cut, and compare."""
    torch.manual_seed(0)
    (x, y), validation, test = split()
    dense = nn.Sequential(
        nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    optimizer = torch.optim.Adam(dense.parameters(), lr=1e-3)
    for _ in range(DENSE_EPOCHS):
        epoch(dense, optimizer, x, y)
    print(f"{DENSE_EPOCHS} epochs without gates: validation error {error(dense, validation):.1f} %")

    gated = vibnet.attach(dense, x[:2])
    optimizer = torch.optim.Adam(vibnet.parameter_groups(gated, lr=1e-3, gate_lr=1e-2))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GATE_EPOCHS)
    for done in range(1, GATE_EPOCHS + 1):
        epoch(gated, optimizer, x, y)
        schedule.step()
        if done % 10 == 0:
            kept = ", ".join(str(len(units)) for units in vibnet.plan(gated).kept.values())
            print(f"gate epoch {done}: error {error(gated, validation):.1f} %, units kept {kept}")

    small, report = vibnet.prune(gated)
    print(f"\n{report}\n")
    compare(dense, small, x[:1], test)


def compare(
    dense: nn.Module, small: nn.Module, example: Tensor, test: tuple[Tensor, Tensor]
) -> None:
    """Print both networks side by side."""
    before, after = (vibnet.measure(m.eval(), example, latency=True) for m in (dense, small))
    rows = {
        "weights": (before.weights, after.weights, ",.0f"),
        "multiply-adds": (before.macs, after.macs, ",.0f"),
        "memory (bytes)": (before.peak_memory, after.peak_memory, ",.0f"),
        "latency of 1": (1e6 * before.latency[0], 1e6 * after.latency[0], ".1f"),
        "latency of 32": (1e6 * before.latency[1], 1e6 * after.latency[1], ".1f"),
        "test error (%)": (error(dense, test), error(small, test), ".1f"),
    }
    print(f"{'':16} {'dense':>10} {'pruned':>10}")
    for name, (old, new, style) in rows.items():
        print(f"{name:16} {old:>10{style}} {new:>10{style}}")
    print("memory: parameters and activations, for one image")
    print(f"latency: microseconds a call of 1 or 32 images, {torch.get_num_threads()} thread(s)")


if __name__ == "__main__":
    main()

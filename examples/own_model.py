"""Gate, train, cut, save and load a network of your own; the images are random numbers."""

import tempfile

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import vibnet


class Net(nn.Module):
    """A small residual network for 3 x 16 x 16 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1, self.norm1 = nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.stem(x).relu()
        x = x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return self.head(x.relu().mean((2, 3)))


def main() -> None:
    """Forty steps on random images, labelled by their brightest colour."""
    torch.manual_seed(0)
    images = torch.randn(64, 3, 16, 16)
    labels = images.mean((2, 3)).argmax(1)
    gated = vibnet.attach(Net(), images[:2])
    print(vibnet.plan(gated))

    # So few steps need high rates and a high price for units to close.
    optimizer = torch.optim.Adam(vibnet.parameter_groups(gated, lr=1e-2, gate_lr=0.3))
    gated.train()
    for _ in range(40):
        loss = cross_entropy(gated(images), labels) + vibnet.penalty(gated, gamma=0.003)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    small, report = vibnet.prune(gated)
    print(f"\n{report}")
    with tempfile.TemporaryDirectory() as folder:
        vibnet.save(small, folder)
        loaded = vibnet.load(folder, Net())
    with torch.no_grad():
        gap = (loaded.eval()(images) - gated.eval()(images)).abs().max()
    print(f"\nlargest difference between the gated and the loaded network's answers: {gap:.1e}")


if __name__ == "__main__":
    main()

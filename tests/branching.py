"""Networks with branches that may go whole, and what is checked of them when some do."""

import torch
from laws import close_units
from liveliness import lively
from torch import nn

from vibnet import attach
from vibnet.surgery.verify import answers, difference


class Block(nn.Module):
    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, 6, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.skip = nn.AvgPool2d(stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.skip(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 5, 3, padding=1)
        self.blocks = nn.ModuleList([Block(5), Block(5, 2)])
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Mixer(nn.Module):
    """Branches that are modules: one of them takes keywords and gives a tuple."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.norm = nn.LayerNorm(6)
        self.mlp = Mlp()
        self.tail = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6, bias=False))

    def forward(self, x):
        x = self.stem(x)
        out, nothing = self.mlp(hidden=self.norm(x))
        assert nothing is None
        x = x + out
        return self.head(x + self.tail(x))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, hidden):
        return self.down(self.up(hidden).relu()), None


IMAGE = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


def gone(model, example, *names, **options):
    """A lively gated model with these sites closed, and half of the units of others."""
    lively(model, example, 0)
    gated = attach(model, example.double(), remove_branches=True, **options)
    close_units(gated, 0.4, 0)
    for name in names:
        gated.gate(name).log_var.data.fill_(5.0)
    return gated.eval()


def check(gated, small, example):
    other = torch.randn(example.shape, generator=torch.Generator().manual_seed(1)).double()
    pair = (answers(m, other, torch.float64) for m in (gated, small))
    assert difference(*pair) < 1e-10

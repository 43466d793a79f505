"""Norms over a stream of units, words for one, and gates as after training."""

import torch
from torch import nn

from vibnet import attach

WIDTH, WORDS = 8, 20
X = torch.randint(0, WORDS, (3, 5), generator=torch.Generator().manual_seed(0))


class Norm(nn.Module):
    """A root-mean-square norm, spelled out; with an offset its weight counts from there."""

    def __init__(self, width=WIDTH, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5 - offset)
        self.eps, self.offset = 1e-2, offset

    def forward(self, x):
        root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x * root * (self.offset + self.weight if self.offset else self.weight)


def trained(model, example=X):
    """A gated copy as after training: means of both signs, every third unit closed."""
    gated = attach(model, example)
    torch.manual_seed(1)
    with torch.no_grad():
        for site, gate in gated.all_gates():
            gate.mu.copy_(torch.randn(site.size))
            gate.mu[::3] = 1e-6
    return gated.eval()

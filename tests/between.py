"""A step between two convolutions: what of it is cut, and what stays, with the reason."""

import torch
from torch import nn

from vibnet.graph.trial.probe import analyse


class Between(nn.Module):
    """A convolution, some layer or function, and another convolution that reads it."""

    def __init__(self, step, width=8, read=None, rank=2):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.a, self.b = conv(3, width, 3, padding=1), conv(read or width, 4, 1)
        self.step = step

    def forward(self, x):
        return self.b(self.step(self.a(x)))


def images(rank=2):
    return torch.randn(2, 3, *[6] * rank)


def graph_of(step, rank=2, **sizes):
    return analyse(Between(step, rank=rank, **sizes), images(rank))


def sizes(graph):
    return {s.name: s.size for s in graph.sites}


def reasons(graph):
    return {s.name: s.reason for s in graph.pinned}

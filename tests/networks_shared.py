"""Test networks that share, freeze, reuse or write in place, and fully connected ones."""

import torch
import torch.nn.functional as F
from networks_conv import conv_bn_relu
from torch import nn


class MLP(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.fc1 = nn.Linear(7, 12)
        self.fc2 = nn.Linear(12, 9)
        self.fc3 = nn.Linear(9, 4)
        self.act = getattr(nn, activation)()

    def forward(self, x):
        return self.fc3(self.act(self.fc2(self.act(self.fc1(x)))))


class Recurrent(nn.Module):
    """One block called three times, as in a recurrent residual network."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.inner = nn.Conv2d(5, 7, 3, padding=1)
        self.outer = nn.Conv2d(7, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        h = F.relu(self.stem(x))
        for _ in range(3):
            h = F.relu(h + self.outer(F.relu(self.inner(h))))
        return self.head(h.mean((2, 3)))


class TiedModule(nn.Module):
    """The same linear layer twice in a row, and once more elsewhere."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(7, 8)
        self.shared = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.head(torch.relu(self.shared(torch.relu(self.shared(h)))))


class TiedParameter(nn.Module):
    """Two linear layers, side by side, that own one weight; their biases are their own."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(7, 8)
        self.left = nn.Linear(8, 6)
        self.right = nn.Linear(8, 6)
        self.right.weight = self.left.weight
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.relu(self.fc1(x))
        return self.head(torch.relu(self.left(h)) - torch.tanh(self.right(h)))


class TiedTransposed(nn.Module):
    """An autoencoder that decodes with the transpose of the weight it encodes with."""

    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(7, 6)
        self.bias = nn.Parameter(torch.zeros(7))

    def forward(self, x):
        return F.linear(torch.relu(self.encode(x)), self.encode.weight.t(), self.bias)


class FrozenNorm(nn.Module):
    """Batch norms that stay in evaluation mode and whose parameters are not trained."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*conv_bn_relu(3, 6), *conv_bn_relu(6, 8))
        self.head = nn.Linear(8, 4)
        for norm in self.norms():
            norm.requires_grad_(False)
        self.train()

    def norms(self):
        return [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]

    def train(self, mode=True):
        super().train(mode)
        for norm in self.norms():
            norm.eval()
        return self

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class BareLinear(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.b = nn.Parameter(torch.zeros(outputs))

    def forward(self, x):
        return F.linear(x, self.w, self.b)


class BareMatmul(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.w = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)

    def forward(self, x):
        return x @ self.w


class Functional(nn.Module):
    """Functional calls with bare weights, in modules whose own input is what they read."""

    def __init__(self):
        super().__init__()
        self.layer1 = BareLinear(7, 10)
        self.layer2 = BareMatmul(10, 8)
        self.layer3 = BareLinear(8, 4)

    def forward(self, x):
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


class InplaceReLU(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = self.norm(self.conv1(x))
        self.relu(h)  # the result is thrown away: h itself has changed
        h = h + self.relu(self.conv2(h))
        h.mul_(0.5).add_(0.1)
        return self.head(h.mean((2, 3)))


class InplaceView(nn.Module):
    """A write through a view: the first channels get the output of a second branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 7, 3, padding=1)
        self.branch = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(7, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        y = F.silu(self.stem(x))
        z = F.relu(self.branch(x))
        y[:, : z.shape[1]] += z
        return self.head(F.relu(self.last(y)).mean((2, 3)))


class Outputs(nn.Module):
    """Two heads, one of which shows a feature map as it is."""

    def __init__(self, as_dict):
        super().__init__()
        self.as_dict = as_dict
        self.stem = conv_bn_relu(3, 6)
        self.map = nn.Conv2d(6, 5, 3, padding=1)
        self.deep = conv_bn_relu(5, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        shown = self.map(self.stem(x))
        logits = self.head(self.deep(F.relu(shown)).mean((2, 3)))
        return {"logits": logits, "features": [shown]} if self.as_dict else (logits, shown)

"""Small modules of the kinds that people write, for the random networks to draw from."""

import torch
import torch.nn.functional as F
from torch import nn

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
DROPOUTS = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
MAX_POOLS = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOLS = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE = {
    1: (nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    2: (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
    3: (nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}
CONV_FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LINEAR_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Scale(nn.Module):
    """One parameter a channel, multiplied."""

    def __init__(self, channels, dims):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, *[1] * dims))

    def forward(self, x):
        return x * self.scale


class Shift(nn.Module):
    """One parameter a channel, added."""

    def __init__(self, channels, dims):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, *[1] * dims))

    def forward(self, x):
        return x + self.shift


class Standardise(nn.Module):
    """One number a channel in a buffer, as for the means of a data set."""

    def __init__(self, channels, dims):
        super().__init__()
        self.register_buffer("mean", torch.randn(channels, *[1] * dims))

    def forward(self, x):
        return x - self.mean


class Permute(nn.Module):
    """Channels in the order of a buffer."""

    def __init__(self, channels, select):
        super().__init__()
        self.select = select
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x):
        return torch.index_select(x, 1, self.order) if self.select else x[:, self.order]


class BareConv(nn.Module):
    """A functional convolution with a bare weight."""

    def __init__(self, inputs, outputs, dims):
        super().__init__()
        self.w = nn.Parameter(torch.randn(outputs, inputs, *[3] * dims) / (inputs * 3**dims) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.dims = dims

    def forward(self, x):
        return CONV_FUNCTIONS[self.dims](x, self.w, self.bias, padding=1)


class BareLinear(nn.Module):
    """A functional linear map with a bare weight, spelled in one of three ways."""

    def __init__(self, inputs, outputs, spelling):
        super().__init__()
        self.spelling = spelling
        self.w = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        if spelling == "matmul":
            self.w = nn.Parameter(self.w.detach().t().contiguous())

    def forward(self, x):
        if self.spelling == "matmul":
            return x @ self.w
        if self.spelling == "einsum":
            return torch.einsum("...i,oi->...o", x, self.w)
        return F.linear(x, self.w)


class SqueezeExcite(nn.Module):
    """Channels scaled by what their averages say, by convolutions or by linear layers."""

    def __init__(self, channels, squeezed, dims, linear):
        super().__init__()
        make = nn.Linear if linear else lambda i, o: CONVS[dims](i, o, 1)
        self.fc1, self.fc2 = make(channels, squeezed), make(squeezed, channels)
        self.dims, self.linear = dims, linear

    def forward(self, x):
        space = tuple(range(2, 2 + self.dims))
        if self.linear:
            scale = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(space)))))
            return x * scale.view(*scale.shape, *[1] * self.dims)
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(x.mean(space, keepdim=True)))))


class SplitByAttribute(nn.Module):
    """Channels split into uneven parts whose widths are an attribute."""

    def __init__(self, widths):
        super().__init__()
        self.widths = widths

    def forward(self, x):
        return torch.split(x, self.widths, dim=1)


class Attention(nn.Module):
    """One head of attention over ``(batch, tokens, channels)``."""

    def __init__(self, channels, inner, fused):
        super().__init__()
        self.query, self.key = nn.Linear(channels, inner), nn.Linear(channels, inner)
        self.value, self.out = nn.Linear(channels, inner), nn.Linear(inner, channels)
        self.fused = fused

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        if self.fused:
            return self.out(F.scaled_dot_product_attention(q, k, v))
        weights = torch.softmax(q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5, dim=-1)
        return self.out(weights @ v)


class RootMeanSquare(nn.Module):
    """A norm over the last axis, spelled out; with an offset its weight counts from one."""

    def __init__(self, size, offset=0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size) + 0.5 - offset)
        self.eps, self.offset = 1e-3, offset

    def forward(self, x):
        root = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        weight = self.offset + self.weight if self.offset else self.weight
        return x * root * weight


def root_mean_square(size, rng):
    """One of the spellings, torch's own among them; that without an eps has to be refused."""
    spelled = RootMeanSquare(size, rng.choice([0.0, 1.0]))
    return rng.choice([spelled, nn.RMSNorm(size, eps=1e-3), nn.RMSNorm(size)])

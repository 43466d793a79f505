"""Test networks that join, cut and reorder channels by their places, or resize maps."""

import torch
import torch.nn.functional as F
from networks_conv import conv_bn_relu
from torch import nn


def channel_shuffle(x, groups):
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleUnit(nn.Module):
    """ShuffleNetV2: half the channels pass, half are worked on, then both are shuffled."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 8)
        self.branch = nn.Sequential(
            *conv_bn_relu(4, 4, 1),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.BatchNorm2d(4),
            *conv_bn_relu(4, 4, 1),
        )
        self.last = conv_bn_relu(8, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        kept, worked = self.stem(x).chunk(2, dim=1)
        h = channel_shuffle(torch.cat([kept, self.branch(worked)], dim=1), 2)
        return self.head(self.last(h).mean((2, 3)))


class ChunkGate(nn.Module):
    """A gated linear unit: one half of the channels opens and closes the other."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3, padding=1)
        self.conv2 = nn.Conv2d(5, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        a, b = torch.chunk(self.conv1(x), 2, 1)
        return self.head(F.relu(self.conv2(a * torch.sigmoid(b))).mean((2, 3)))


class SliceHalves(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(4, 5, 3, padding=1)
        self.right = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        c = h.shape[1]
        h = F.relu(self.left(h[:, : c // 2]) + self.right(h[:, c // 2 :]))
        return self.head(h.mean((2, 3)))


class SplitUneven(nn.Module):
    """Split by widths that the module keeps as an attribute."""

    def __init__(self):
        super().__init__()
        self.widths = [3, 4, 2]
        self.conv1 = nn.Conv2d(3, 9, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(w, 4, 3, padding=1) for w in self.widths)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        parts = torch.split(F.relu(self.conv1(x)), self.widths, dim=1)
        outs = [conv(part) for conv, part in zip(self.branches, parts, strict=True)]
        return self.head(F.relu(torch.cat(outs, 1)).mean((2, 3)))


class PixelShuffle(nn.Module):
    """Super-resolution: four channels become the four pixels of a finer one."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.conv3 = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        h = self.conv2(torch.tanh(self.conv1(x)))
        return self.conv3(F.relu(self.shuffle(h)))


class Interpolate(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.conv = nn.Conv2d(6, 5, 3, padding=1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.head = nn.Conv2d(5, 2, 3, padding=1)

    def forward(self, x):
        h = F.relu(self.down(x))
        h = F.interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.up(F.relu(self.conv(h))))


class Stacked(nn.Module):
    """Branches laid on a new dimension, which is then summed or averaged away."""

    def __init__(self, reduce):
        super().__init__()
        self.reduce = reduce
        self.stem = nn.Conv2d(3, 5, 3, padding=1)
        self.branches = nn.ModuleList(nn.Conv2d(5, 6, k, padding=k // 2) for k in (1, 3))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = torch.stack([F.relu(branch(h)) for branch in self.branches], dim=1)
        h = h.sum(1) if self.reduce == "sum" else h.mean(dim=1)
        return self.head(h.mean((2, 3)))


class FlipChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 5, 3, padding=1)
        self.conv2 = nn.Conv2d(10, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = F.relu(self.conv1(x))
        h = F.relu(self.conv2(torch.cat([h, h.flip(1)], 1)))
        return self.head(h.mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1 = conv_bn_relu(3, 4)
        self.down2 = conv_bn_relu(4, 6)
        self.bottom = conv_bn_relu(6, 8)
        self.up2 = nn.ConvTranspose2d(8, 5, 2, stride=2)
        self.merge2 = conv_bn_relu(5 + 6, 6)
        self.up1 = nn.ConvTranspose2d(6, 3, 2, stride=2)
        self.merge1 = conv_bn_relu(3 + 4, 4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        h = self.bottom(F.max_pool2d(b, 2))
        h = self.merge2(torch.cat([self.up2(h), b], dim=1))
        h = self.merge1(torch.cat([a, self.up1(h)], dim=1))
        return self.head(h)


class TransposedGrouped(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = conv_bn_relu(3, 8, stride=2)
        self.decode = nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.ConvTranspose2d(12, 12, 3, padding=1, groups=12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        h = F.relu(self.norm(self.decode(self.encode(x))))
        return self.head(F.leaky_relu(self.depthwise(h), 0.2))


class TransposedMultiplier(nn.Module):
    """A depthwise transposed convolution with two outputs for every input channel."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 6)
        self.depthwise = nn.ConvTranspose2d(6, 12, 3, padding=1, groups=6)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x):
        return self.head(F.leaky_relu(self.depthwise(self.stem(x)), 0.2))


class TransposedShared(nn.Module):
    """One grouped transposed convolution called twice, and a 1-d one behind it."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 8)
        self.decode = nn.ConvTranspose2d(8, 8, 3, padding=1, groups=2)
        self.narrow = nn.ConvTranspose1d(8, 9, 3, groups=1)
        self.last = nn.ConvTranspose1d(9, 6, 3, groups=3, bias=False)
        self.head = nn.Conv1d(6, 2, 1)

    def forward(self, x):
        h = torch.tanh(self.decode(F.relu(self.decode(self.stem(x)))))
        return self.head(F.silu(self.last(F.relu(self.narrow(h.mean(2))))))


class Picked(nn.Module):
    """Channels picked by the numbers in a buffer: reordered, left out, or repeated."""

    def __init__(self, numbers):
        super().__init__()
        self.register_buffer("order", torch.tensor(numbers))
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(len(numbers), 6, 3, padding=1)
        self.skip = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.relu(self.conv1(x))
        return self.head(F.relu(self.conv2(h[:, self.order]) + self.skip(h)).mean((2, 3)))


class PickedTwice(nn.Module):
    """One buffer that reorders the same axis in two places, by index_select."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([4, 2, 0, 5, 1, 3], dtype=torch.int32))
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, x):
        h = torch.relu(torch.index_select(self.norm(self.conv1(x)), 1, self.order))
        h = torch.index_select(h, 1, self.order)
        return self.head(torch.tanh(self.conv2(h)).mean((2, 3)))


class RollHalves(nn.Module):
    """The two halves of the channels change places."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        h = torch.relu(self.conv1(x))
        h = torch.cat([h, torch.roll(h, h.shape[1] // 2, 1)], 1)
        return self.head(F.relu(self.conv2(h)).mean((2, 3)))


class ChainedHalves(nn.Module):
    """The block of small detectors: half the channels pass, half go through a chain, all joined.

    With `stated`, the split names the width of a half, which the module keeps.
    """

    def __init__(self, stated):
        super().__init__()
        self.half, self.stated = 4, stated
        self.first = nn.Sequential(*conv_bn_relu(3, 8, 1))
        self.chain = nn.ModuleList(nn.Sequential(*conv_bn_relu(4, 4)) for _ in range(2))
        self.last = nn.Sequential(*conv_bn_relu(16, 6, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        h = self.first(x)
        parts = list(h.split((self.half, self.half), 1) if self.stated else h.chunk(2, 1))
        for link in self.chain:
            parts.append(parts[-1] + link(parts[-1]))
        return self.head(self.last(torch.cat(parts, 1)).mean((2, 3)))

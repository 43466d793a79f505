"""Convolutional test networks: the usual families, small."""

import torch
import torch.nn.functional as F
from torch import nn


def conv_bn_relu(inputs, outputs, kernel=3, **options):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *conv_bn_relu(3, 6), nn.MaxPool2d(2), *conv_bn_relu(6, 8), nn.AvgPool2d(2)
        )
        self.hidden = nn.Linear(8 * 2 * 2, 10)
        self.head = nn.Linear(10, 5)

    def forward(self, x):
        return self.head(F.relu(self.hidden(torch.flatten(self.features(x), 1))))


class PostBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += identity
        return F.relu(out)


class ResidualPost(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 4)
        self.blocks = nn.Sequential(PostBlock(4, 4, 1), PostBlock(4, 8, 2), PostBlock(8, 8, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class PreBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 7, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(7)
        self.conv2 = nn.Conv2d(7, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))


class ResidualPre(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.Sequential(PreBlock(6), PreBlock(6))
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        h = F.relu(self.norm(self.blocks(self.stem(x))))
        return self.head(h.mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv(F.relu(self.norm(x)))], 1)


class DenseConcatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(DenseLayer(4, 3), DenseLayer(7, 3))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1, bias=False), nn.AvgPool2d(2)
        )
        self.block2 = DenseLayer(5, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = self.block2(self.transition(self.block1(self.stem(x))))
        return self.head(F.relu(self.norm(h)).mean((2, 3)))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        scale = F.relu(self.fc1(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.fc2(scale))


class MobileBlock(nn.Module):
    def __init__(self, channels, expanded):
        super().__init__()
        self.expand = nn.Conv2d(channels, expanded, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.depthwise = nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False)
        self.bn2 = nn.BatchNorm2d(expanded)
        self.squeeze = SqueezeExcite(expanded, 3)
        self.project = nn.Conv2d(expanded, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.act = nn.Hardswish()

    def forward(self, x):
        h = self.act(self.bn1(self.expand(x)))
        h = self.squeeze(self.act(self.bn2(self.depthwise(h))))
        return x + self.bn3(self.project(h))


class InvertedBottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.Hardswish()
        )
        self.blocks = nn.Sequential(MobileBlock(4, 8), MobileBlock(4, 12))
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6), nn.Hardswish(), nn.Linear(6, 5)
        )

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


class Grouped(nn.Module):
    """ResNeXt: a bottleneck with a grouped convolution in the middle."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 8)
        self.reduce = conv_bn_relu(8, 12, 1)
        self.grouped = conv_bn_relu(12, 12, 3, groups=3)
        self.restore = nn.Sequential(nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = self.stem(x)
        h = F.relu(h + self.restore(self.grouped(self.reduce(h))))
        return self.head(h.mean((2, 3)))


class DepthwiseMultiplier(nn.Module):
    """A depthwise convolution with two outputs for every input channel."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 5)
        self.depthwise = conv_bn_relu(5, 10, 3, groups=5)
        self.pointwise = conv_bn_relu(10, 6, 1)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.pointwise(self.depthwise(self.stem(x))).mean((2, 3)))


class Conv1dNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.conv2 = nn.Conv1d(6, 8, 3, dilation=2, padding=2)
        self.head = nn.Linear(8 * 3, 5)

    def forward(self, x):
        h = F.max_pool1d(F.gelu(self.norm(self.conv1(x))), 2)
        h = F.max_pool1d(F.silu(self.conv2(h)), 2)
        return self.head(h.reshape(h.shape[0], -1))


class Conv3dNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv3d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.conv2 = nn.Conv3d(4, 6, (1, 2, 2))
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        h = F.max_pool3d(F.relu(self.norm(self.conv1(x))), (2, 1, 2))
        return self.head(F.relu(self.conv2(h)).mean((2, 3, 4)))


class PReLUScale(nn.Module):
    """Parameters of one number a channel that no norm owns: PReLU's, a scale and a shift."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.prelu = nn.PReLU(6)
        self.scale = nn.Parameter(torch.ones(6, 1, 1))
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.shift = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = self.prelu(self.conv1(x)) * self.scale
        h = self.conv2(h) + self.shift
        return self.head(torch.relu(h).mean((-1, -2)))


class AdaptivePool(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*conv_bn_relu(3, 6), *conv_bn_relu(6, 5))
        self.pool = nn.AdaptiveAvgPool2d((3, 2))
        self.classifier = nn.Sequential(nn.Linear(5 * 6, 9), nn.ReLU(), nn.Linear(9, 4))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


class GlobalMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*conv_bn_relu(3, 6, stride=2), *conv_bn_relu(6, 7))
        self.head = nn.Conv2d(7, 4, 1)

    def forward(self, x):
        h = self.features(x).mean((2, 3), keepdim=True)
        return self.head(h).squeeze(-1).squeeze(-1)


class Dropouts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.drop_channels = nn.Dropout2d(0.3)
        self.conv2 = nn.Conv2d(6, 5, 3, padding=1)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(5 * 4, 4)

    def forward(self, x):
        h = self.drop_channels(F.relu(self.conv1(x)))
        h = F.adaptive_max_pool2d(F.relu(self.conv2(h)), 2)
        return self.head(self.drop(h.flatten(1)))


class PaddedShortcut(nn.Module):
    """A residual network whose shortcut gets its new channels by padding with zeros."""

    def __init__(self):
        super().__init__()
        self.stem = conv_bn_relu(3, 4)
        self.branch = nn.Sequential(
            *conv_bn_relu(4, 8, stride=2), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        h = self.stem(x)
        shortcut = F.pad(h[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.head(F.relu(self.branch(h) + shortcut).mean((2, 3)))

"""LeNet-300-100, LeNet-5-Caffe, the VGGs of the paper, and a small residual network.

All of them are ordinary modules: nothing here knows of gates. Widths are arguments, so that a
published pruned structure can be built and counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from vibnet.errors import ConfigError


class LeNet300100(nn.Module):
    """The fully connected network of LeCun et al. 1998: 784-300-100-10, with ReLU.

    Args:
        widths: Inputs, first and second hidden layer.
        classes: Number of logits.

    Shapes:
        ``(batch, *any)`` holding ``widths[0]`` numbers an example, to ``(batch, classes)``.

    Source:
        Dai et al. 2018, table 1: 266,200 weights without biases.

    >>> sum(m.weight.numel() for m in LeNet300100().children())
    266200
    """

    def __init__(self, widths: tuple[int, int, int] = (784, 300, 100), classes: int = 10) -> None:
        super().__init__()
        inputs, hidden1, hidden2 = widths
        self.fc1 = nn.Linear(inputs, hidden1)
        self.fc2 = nn.Linear(hidden1, hidden2)
        self.fc3 = nn.Linear(hidden2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``."""
        h = F.relu(self.fc1(x.flatten(1)))
        h = F.relu(self.fc2(h))
        logits: Tensor = self.fc3(h)
        return logits


class LeNet5Caffe(nn.Module):
    """LeNet-5 as Caffe ships it: conv 20, pool, conv 50, pool, 500, 10.

    Caffe's file has one ReLU, after ``fc1``. We put one after each convolution too, because the
    paper's units are outputs of a nonlinearity (the f of eq. 4).

    Args:
        conv1: Channels of the first 5x5 convolution.
        conv2: Channels of the second 5x5 convolution.
        hidden: Outputs of ``fc1``.
        classes: Number of logits.

    Shapes:
        ``(batch, 1, 28, 28)`` to ``(batch, classes)``; maps of 24, 12, 8 and 4 pixels a side.

    Source:
        Dai et al. 2018, table 2: 430,500 weights without biases, 2,293,000 multiply-adds.

    >>> LeNet5Caffe(conv1=3, conv2=10).fc1.in_features
    160
    """

    def __init__(
        self, conv1: int = 20, conv2: int = 50, hidden: int = 500, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, conv1, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(conv1, conv2, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(4 * 4 * conv2, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``."""
        h = self.pool1(F.relu(self.conv1(x)))
        h = self.pool2(F.relu(self.conv2(h)))
        h = F.relu(self.fc1(h.flatten(1)))
        logits: Tensor = self.fc2(h)
        return logits


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One of the VGGs that the paper prunes, by the name it has in the authors' code."""

    conv_widths: tuple[int, ...] = (64, 64, 128, 128, *(256,) * 3, *(512,) * 6)
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)  # convolutions before each pooling
    hidden_widths: tuple[int, ...] = (512,)
    classes: int = 10
    average_last: bool = False  # the last pooling takes the mean instead of the maximum


VARIANTS = {
    "D4": Variant(hidden_widths=(512, 512)),
    "D6": Variant(),
    "G": Variant(classes=100),
    "G5": Variant(
        conv_widths=(64, 64, 128, 128, *(256,) * 4, *(512,) * 8),
        depths=(2, 2, 4, 4, 4),
        hidden_widths=(),
        average_last=True,
    ),
}


class VGG(nn.Module):
    """A VGG for 32x32 images: conv-BN-ReLU blocks, five poolings, hidden layers with ReLU.

    | variant | convolutions | hidden | classes | last pooling | compared with |
    | --- | --- | --- | --- | --- | --- |
    | D4 | 13 | 512-512 | 10 | max | BC-GNJ, BC-GHS |
    | D6 | 13 | 512 | 10 | max | PF, SBP |
    | G | 13 | 512 | 100 | max | RNP |
    | G5 | 16 | none | 10 (100 for CIFAR-100) | average | NS |

    Args:
        variant: One of the names above.
        classes: Number of logits; the variant's own where it is not given.
        conv_widths: Channels of every convolution; the variant's own where not given.
        hidden_widths: Outputs of every hidden linear layer; the variant's own where not given.

    Shapes:
        ``(batch, 3, 32, 32)`` to ``(batch, classes)``; maps of 32, 16, 8, 4, 2 pixels a side.

    Raises:
        ConfigError: The variant is unknown, or the number of convolutions is not the variant's.

    Source:
        Dai et al. 2018, tables 3 and 4; the structures are those of the authors' released code.

    >>> VGG("D6", hidden_widths=(27,)).classifier
    Sequential(
      (0): Linear(in_features=512, out_features=27, bias=True)
      (1): ReLU()
      (2): Linear(in_features=27, out_features=10, bias=True)
    )
    """

    def __init__(
        self,
        variant: str,
        classes: int | None = None,
        *,
        conv_widths: Sequence[int] | None = None,
        hidden_widths: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ConfigError(f"VGG has no variant {variant!r}. There are: {', '.join(VARIANTS)}.")
        base = VARIANTS[variant]
        convs = base.conv_widths if conv_widths is None else tuple(conv_widths)
        hidden = base.hidden_widths if hidden_widths is None else tuple(hidden_widths)
        if len(convs) != len(base.conv_widths):
            raise ConfigError(
                f"VGG {variant!r} has {len(base.conv_widths)} convolutions, but conv_widths names "
                f"{len(convs)} widths. Give one width for every convolution."
            )
        self.features = _features(convs, base)
        self.classifier = _classifier((convs[-1], *hidden), classes or base.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _features(widths: tuple[int, ...], variant: Variant) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels, remaining = 3, iter(widths)
    for block, depth in enumerate(variant.depths, start=1):
        for _ in range(depth):
            width = next(remaining)
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        average = variant.average_last and block == len(variant.depths)
        layers.append(nn.AvgPool2d(2) if average else nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def _classifier(widths: tuple[int, ...], classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to a shortcut, then ReLU.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out, and those between the convolutions.
        stride: Of the first convolution; a 1x1 convolution follows suit on the shortcut where the
            shape changes.

    Shapes:
        ``(batch, inputs, h, w)`` to ``(batch, outputs, h / stride, w / stride)``.

    Source:
        He et al. 2016, arXiv 1512.03385, figure 2 (activation after the addition).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of branch and shortcut, rectified."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.shortcut(x))


class ResidualCNN(nn.Module):
    """A small residual network: a stem, stages of doubling width, global average, one linear layer.

    Args:
        width: Channels of the stem and the first stage; each later stage has twice the one before.
        blocks: Residual blocks of every stage; all stages but the first begin with stride 2.
        in_channels: Channels of the image.
        classes: Number of logits.

    Shapes:
        ``(batch, in_channels, h, w)`` to ``(batch, classes)``, any ``h`` and ``w``.

    Source:
        He et al. 2016, arXiv 1512.03385, section 4.2, with 1x1 convolutions on the shortcuts.
    """

    def __init__(
        self,
        width: int = 16,
        blocks: Sequence[int] = (2, 2, 2),
        in_channels: int = 1,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        stages: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(blocks):
            outputs = width * 2**stage
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(ResidualBlock(channels, outputs, stride))
                channels = outputs
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape ``(batch, classes)``."""
        h = self.stages(self.stem(x)).mean((2, 3))
        logits: Tensor = self.classifier(h)
        return logits

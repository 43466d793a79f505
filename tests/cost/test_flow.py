"""Costs follow the paper's rules: its base totals and its published rows, exactly."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vibnet.cost import measure
from vibnet.errors import ConfigError
from vibnet.zoo import VGG, LeNet5Caffe

MNIST = torch.zeros(1, 1, 28, 28)
CIFAR = torch.zeros(1, 3, 32, 32)


def counted_one_by_one(conv, x):
    """Multiply-adds of a 2-d convolution; those with padding, or cropped away, count too."""
    transposed = isinstance(conv, nn.ConvTranspose2d)
    height, width = (x if transposed else conv(x)).shape[2:]
    ins, outs = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    total = 0
    for _group, _row, _column in itertools.product(*map(range, (conv.groups, height, width))):
        for _in, _out in itertools.product(range(ins), range(outs)):
            for _ in itertools.product(*map(range, conv.kernel_size)):
                total += 1
    return total


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 2), stride=2, groups=2, bias=False),
        nn.Conv2d(4, 8, 3, dilation=2, padding=2, groups=4),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
    ],
    ids=["plain", "grouped", "depthwise", "transposed", "transposed-grouped"],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_multiply_adds_of_convolutions_are_those_counted_one_by_one(conv, batch):
    x = torch.zeros(batch, 4, 7, 6)
    cost = measure(conv, x)
    assert cost.macs == counted_one_by_one(conv, x)
    assert cost.weights == conv.weight.numel()
    assert cost.neurons == 0  # its outputs are the model's


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.unused, self.head = nn.Linear(5, 5), nn.Linear(5, 9), nn.Linear(5, 2)

    def forward(self, x):
        return F.log_softmax(self.head(F.relu(self.body(F.relu(self.body(x))))), dim=1)


def test_a_shared_weight_is_one_weight_and_two_products():
    cost = measure(Twice(), torch.zeros(1, 5))
    assert cost.weights == 25 + 10  # nothing reads the third one
    assert cost.macs == 25 + 25 + 10
    assert cost.neurons == 5 + 5  # logits stay logits through log_softmax
    assert cost.parameters == 30 + 54 + 12


def test_products_of_two_activations_are_stated_separately():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for batch in (1, 2):
        cost = measure(attention, (torch.zeros(batch, 3, 8),) * 3)
        assert cost.weights == 3 * 64 + 64
        assert cost.macs == 3 * (3 * 64 + 64)
        assert cost.attention_macs == 2 * 3 * 3 * 8


@pytest.mark.parametrize(
    ("pooling", "outputs"),
    [
        (nn.MaxPool2d(2), 3 * 4),
        (nn.AvgPool2d(2), 3 * 4),
        (nn.AdaptiveAvgPool2d(1), 3),
        (nn.AdaptiveMaxPool2d(1), 3),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_output_of_every_pooling_counts(pooling, outputs):
    model = nn.Sequential(nn.Conv2d(1, 3, 1), pooling, nn.Flatten(), nn.Linear(outputs, 2))
    assert measure(model, torch.zeros(2, 1, 4, 4)).neurons == 3 * 16 + outputs


class Mean(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


def test_a_mean_outside_a_pooling_module_does_not_count():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), Mean(), nn.Linear(3, 2))
    assert measure(model, torch.zeros(1, 1, 4, 4)).neurons == 3 * 16


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_peak_memory_of_a_small_network_is_that_counted_by_hand(batch):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6, 3))
    weights = 4 * (4 * 6 + 6 + 6 * 3 + 3)
    # alive at: the first product 4 + 6, the ReLU 6 + 6 (the input is gone), the second 6 + 3
    assert measure(model, torch.zeros(batch, 4)).peak_memory == weights + 4 * 12


def test_views_share_their_memory_and_buffers_count():
    model = nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)), nn.Flatten(), nn.Linear(6, 3))
    model.register_buffer("extra", torch.zeros(7, dtype=torch.float64))
    cost = measure(model, torch.zeros(1, 4))
    assert cost.bytes == 4 * (30 + 21) + 56
    assert cost.peak_memory == cost.bytes + 4 * 10


def test_measuring_leaves_the_model_untouched():
    model = VGG("D6", conv_widths=(2,) * 13, hidden_widths=(2,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure(model, torch.randn(2, 3, 32, 32))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_unknown_feature_names_the_linear_modules_there_are():
    with pytest.raises(ConfigError, match=r"names 'conv1', which is no linear.*fc1, fc2"):
        measure(LeNet5Caffe(), MNIST, features=["conv1"])


@pytest.mark.parametrize("stride", [1, 2, 3, (1, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_multiply_adds_follow_the_stride(stride, transposed):
    conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(4, 6, 3, stride=stride)
    x = torch.zeros(2, 4, 9, 8)
    assert measure(conv, x).macs == counted_one_by_one(conv, x)


def test_a_computed_weight_that_is_repeated_without_a_copy_counts_once():
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(6, 1)), nn.Parameter(torch.ones(6, 1))

        def forward(self, x):
            return F.linear(x, (self.a + self.b).expand(6, 4))

    cost = measure(Repeated(), torch.zeros(1, 4))
    assert cost.weights == 6
    assert cost.macs == 24

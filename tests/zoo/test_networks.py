"""The zoo has exactly the totals of the paper, counted here the slow way."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vibnet.errors import ConfigError
from vibnet.zoo import VGG, LeNet5Caffe, LeNet300100, ResidualCNN

MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)


def count(model, shape):
    """Weights, multiply-adds of one example, and sizes of the outputs of layers and of poolings.

    Weights without biases and norms; one operation per multiply-add, the last layer included.
    """
    weights, macs, layers, pools = 0, 0, [], []

    def visit(module, _, output):
        nonlocal weights, macs
        if isinstance(module, nn.Conv2d | nn.Linear):
            weights += module.weight.numel()
            for unit in module.weight:  # at every position a unit reads each of its weights once
                positions = output[0, 0].numel() if output.ndim > 2 else 1
                macs += positions * unit.numel()
            layers.append(output[0].numel())
        elif isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            pools.append(output[0].numel())

    hooks = [m.register_forward_hook(visit) for m in model.modules()]
    with torch.no_grad():
        model.eval()(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return weights, macs, sum(layers[:-1]) + sum(pools)  # the logits are no neurons


@pytest.mark.parametrize(
    ("model", "shape", "weights", "macs", "neurons"),
    [  # Dai et al. 2018, base networks of tables 1 to 4; the third number is the base of r_N
        (LeNet300100, MNIST, 266_200, 266_200, 1184 - 784),
        (LeNet5Caffe, MNIST, 430_500, 2_293_000, 19_700 - 800),
        (lambda: VGG("D4"), CIFAR, 15_239_872, 313_725_952, 308_736),
        (lambda: VGG("D6"), CIFAR, 14_977_728, 313_463_808, 308_224),
        (lambda: VGG("G"), CIFAR, 15_023_808, 313_509_888, 308_224),
        (lambda: VGG("G5"), CIFAR, 20_024_000, 398_136_320, 334_336),
        (lambda: VGG("G5", 100), CIFAR, 20_070_080, 398_182_400, 334_336),
    ],
    ids=["lenet300", "lenet5", "D4", "D6", "G", "G5", "G5-100"],
)
def test_base_networks_have_the_totals_of_the_paper(model, shape, weights, macs, neurons):
    # r_N of the LeNets also counts the declared inputs: 784 pixels, 800 flattened features
    assert count(model(), shape) == (weights, macs, neurons)


@pytest.mark.parametrize(
    ("variant", "convs", "hidden", "r_w", "mega_macs", "r_n"),
    [  # Dai et al. 2018, table 3, with the structures that its sources publish
        (
            "D4",
            (63, 64, 128, 128, 245, 155, 63, 26, 24, 20, 14, 12, 11),
            (11, 15),
            6.57,
            141.5,
            81.68,
        ),
        ("D4", (51, 62, 125, 128, 228, 129, 38, 13, 9, 6, 5, 6, 6), (6, 20), 5.40, 121.9, 74.82),
        ("D6", (32, 64, 128, 128, *(256,) * 9), (512,), 35.99, 206.3, 83.97),
        ("D6", (64, 62, 128, 126, 234, 155, 31, 79, 73, 9, 59, 73, 56), (27,), 7.01, 136.0, 80.72),
        ("D6", (44, 54, 92, 115, 234, 155, 31, 76, 55, 9, 34, 35, 21), (280,), 5.78, 99.20, 66.46),
    ],
    ids=["BC-GNJ", "BC-GHS", "PF", "SBP", "SBPa"],
)
def test_published_structures_can_be_built(variant, convs, hidden, r_w, mega_macs, r_n):
    base = count(VGG(variant), CIFAR)
    small = count(VGG(variant, conv_widths=convs, hidden_widths=hidden), CIFAR)
    # one unit of the last printed digit: a few rows are truncated, not rounded
    assert 100 * small[0] / base[0] == pytest.approx(r_w, abs=0.01)
    assert small[1] / 1e6 == pytest.approx(mega_macs, abs=0.1 if mega_macs > 100 else 0.01)
    assert 100 * small[2] / base[2] == pytest.approx(r_n, abs=0.01)


def test_pruned_lenets_can_be_built():
    # Dai et al. 2018, table 1, VIBNet 97-71-33: 9560 of 266,200 weights
    weights, macs, _ = count(LeNet300100((97, 71, 33)), (97,))
    assert (weights, macs) == (9560, 9560)
    # 3 and 10 channels as in table 2, with all their 160 features: 25a + 25ab + 160d + 10d
    weights, macs, _ = count(LeNet5Caffe(conv1=3, conv2=10, hidden=35), MNIST)
    assert (weights, macs) == (75 + 750 + 5600 + 350, 43_200 + 48_000 + 5600 + 350)


def test_the_residual_network_has_the_weights_of_its_formula():
    weights, _, _ = count(ResidualCNN(width=4, blocks=(1, 2), in_channels=3, classes=5), (3, 8, 8))
    stem, first = 9 * 3 * 4, 2 * 9 * 4 * 4
    second = 9 * 4 * 8 + 9 * 8 * 8 + 4 * 8  # with the shortcut's 1x1 convolution
    assert weights == stem + first + second + 2 * 9 * 8 * 8 + 8 * 5


@pytest.mark.parametrize(
    ("model", "shape", "classes"),
    [
        (LeNet300100((784, 5, 4), classes=3), MNIST, 3),
        (LeNet5Caffe(2, 3, 4, classes=3), MNIST, 3),
        (VGG("G", conv_widths=(2,) * 13, hidden_widths=(3,)), CIFAR, 100),
        (VGG("G5", 7, conv_widths=(2,) * 16), CIFAR, 7),
        (ResidualCNN(width=2), (1, 9, 7), 10),
    ],
    ids=["lenet300", "lenet5", "G", "G5", "residual"],
)
def test_outputs_have_one_logit_a_class_and_gradients_reach_every_parameter(model, shape, classes):
    generator = torch.Generator().manual_seed(0)
    output = model.train()(torch.randn(4, *shape, generator=generator))
    assert output.shape == (4, classes)
    (output * torch.randn(output.shape, generator=generator)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_first_lenet_computes_the_obvious_formula():
    torch.manual_seed(0)
    model = LeNet300100((12, 5, 4), classes=3).double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    h = x.reshape(2, 12)
    for layer in (model.fc1, model.fc2):
        h = (h @ layer.weight.T + layer.bias).clamp(min=0)
    expected = h @ model.fc3.weight.T + model.fc3.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_the_second_lenet_rectifies_after_both_convolutions():
    torch.manual_seed(0)
    model = LeNet5Caffe(2, 3, 4).double()
    x = torch.randn(2, *MNIST, dtype=torch.float64)
    h = F.max_pool2d(F.conv2d(x, model.conv1.weight, model.conv1.bias), 2).clamp(min=0)
    h = F.max_pool2d(F.conv2d(h, model.conv2.weight, model.conv2.bias), 2).clamp(min=0)
    h = (h.reshape(2, 48) @ model.fc1.weight.T + model.fc1.bias).clamp(min=0)
    expected = h @ model.fc2.weight.T + model.fc2.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)


def test_a_residual_block_without_branch_is_its_rectified_input():
    model = ResidualCNN(width=2, blocks=(1,))
    block = model.stages[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block.eval()(x), x.clamp(min=0), rtol=0, atol=0)


def test_an_unknown_variant_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"no variant 'D9'. There are: D4, D6, G, G5\."):
        VGG("D9")


def test_a_wrong_number_of_widths_is_refused():
    with pytest.raises(ConfigError, match="'G5' has 16 convolutions, but conv_widths names 13"):
        VGG("G5", conv_widths=(8,) * 13)

"""Costs follow the paper's rules: its base totals and its published rows, exactly."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vibnet import plan, prune
from vibnet.cost import Cost, measure, ratios
from vibnet.errors import ConfigError
from vibnet.zoo import VGG, LeNet5Caffe, LeNet300100

MNIST = torch.zeros(1, 1, 28, 28)
CIFAR = torch.zeros(1, 3, 32, 32)


class SelectingLeNet5(LeNet5Caffe):
    """LeNet-5 with `features` of its 16 * conv2 flattened features kept."""

    def __init__(self, conv1, conv2, features, hidden):
        super().__init__(conv1, conv2, hidden)
        assert features <= 16 * conv2, "more features kept than there are"
        self.fc1 = nn.Linear(features, hidden)
        self.register_buffer("kept", torch.arange(features))

    def forward(self, x):
        h = self.pool1(F.relu(self.conv1(x)))
        h = self.pool2(F.relu(self.conv2(h))).flatten(1)
        return self.fc2(F.relu(self.fc1(h.index_select(1, self.kept))))


def lenet300(widths=(784, 300, 100)):
    return measure(LeNet300100(widths), torch.zeros(2, widths[0]), inputs=True)


def lenet5(structure):
    return measure(SelectingLeNet5(*structure), MNIST, features=["fc1"])


def really(model, example, kept, **request):
    """The costs of a model that is really cut to some units of every site."""
    whole = plan(model, example, **request)
    wanted = replace(whole, kept={**whole.kept, **kept})
    small, _ = prune(model, wanted, example)
    return measure(small, example, **request)


def vgg(variant, convs=None, hidden=None, classes=None):
    model = VGG(variant, classes, conv_widths=convs, hidden_widths=hidden)
    return measure(model, CIFAR)


def near(value, printed):
    """Within one unit of the last printed digit: some rows of the paper are truncated."""
    unit = 10.0 ** -len(printed.partition(".")[2])
    return abs(value - float(printed)) <= unit * (1 + 1e-9)


def test_the_base_of_lenet300_is_that_of_the_paper():
    cost = lenet300()
    assert (cost.weights, cost.macs, cost.neurons) == (266_200, 266_200, 1184)
    assert cost.attention_macs == 0
    assert cost.parameters == 266_610
    assert cost.bytes == 4 * 266_610


def test_the_base_of_lenet5_is_that_of_the_paper():
    cost = measure(LeNet5Caffe(), MNIST, features=["fc1"])
    assert (cost.weights, cost.macs, cost.neurons) == (430_500, 2_293_000, 19_700)
    assert lenet5((20, 50, 800, 500)).neurons == 19_700


@pytest.mark.parametrize(
    ("variant", "classes", "weights", "macs", "neurons"),
    [
        ("D4", None, 15_239_872, 313_725_952, 308_736),
        ("D6", None, 14_977_728, 313_463_808, 308_224),
        ("G", None, 15_023_808, 313_509_888, 308_224),
        ("G5", 10, 20_024_000, 398_136_320, 334_336),
        ("G5", 100, 20_070_080, 398_182_400, 334_336),
    ],
)
def test_the_bases_of_the_vggs_are_those_of_the_paper(variant, classes, weights, macs, neurons):
    cost = vgg(variant, classes=classes)
    assert (cost.weights, cost.macs, cost.neurons) == (weights, macs, neurons)


@pytest.mark.parametrize(
    ("structure", "r_w", "r_n"),
    [
        ((512, 114, 72), "25.28", "58.95"),  # VD
        ((278, 98, 13), "10.76", "32.85"),  # BC-GNJ
        ((311, 86, 14), "10.55", "34.71"),  # BC-GHS
        ((219, 214, 100), "26.02", "45.02"),  # L0
        ((266, 88, 33), "10.01", "32.69"),  # L0-sep
        ((97, 71, 33), "3.59", "16.98"),  # VIBNet
    ],
)
def test_rows_of_table_1_follow_from_their_structures(structure, r_w, r_n):
    found = ratios(lenet300(structure), lenet300())
    assert near(found.weights, r_w)
    assert near(found.neurons, r_n)


def test_drop_neurons_weights_in_table_1_do_not_follow_from_its_structure():
    found = ratios(lenet300((542, 83, 61)), lenet300())
    assert near(found.neurons, "57.94")
    assert near(found.weights, "19.03")
    assert not near(found.weights, "23.05")  # as printed


@pytest.mark.parametrize(
    ("structure", "r_w", "mega_macs", "r_n"),
    [
        ((7, 13, 208, 16), "1.38", "0.250", "32.00"),  # GD
        ((3, 12, 192, 500), "23.69", "0.201", "19.35"),  # GL
        ((14, 19, 242, 131), "9.29", "0.660", "60.78"),  # VD
        ((3, 18, 284, 283), "19.66", "0.213", "21.15"),  # SBP
        ((8, 13, 88, 13), "0.95", "0.283", "35.03"),  # BC-GNJ
        ((5, 10, 76, 16), "0.64", "0.153", "22.80"),  # BC-GHS
        ((20, 25, 45, 462), "8.92", "1.113", "85.82"),  # L0
        ((9, 18, 5, 25), "1.08", "0.389", "40.36"),  # L0-sep, 5 features as printed
        ((3, 10, 68, 35), "0.83", "0.094", "15.55"),  # VIBNet, one of four that fit
    ],
)
def test_rows_of_table_2_follow_from_their_structures(structure, r_w, mega_macs, r_n):
    found = ratios(lenet5(structure), lenet5((20, 50, 800, 500)))
    assert near(found.weights, r_w)
    assert near(found.macs / 1e6, mega_macs)
    assert near(found.neurons, r_n)


def test_the_structure_l0_sep_published_is_larger_than_table_2_says():
    found = ratios(lenet5((9, 18, 65, 25)), lenet5((20, 50, 800, 500)))
    assert near(found.weights, "1.429")
    assert near(found.macs / 1e6, "0.3907")
    assert near(found.neurons, "40.66")


@pytest.mark.parametrize(
    ("variant", "convs", "hidden", "r_w", "mega_macs", "r_n"),
    [
        (  # BC-GNJ
            *("D4", (63, 64, 128, 128, 245, 155, 63, 26, 24, 20, 14, 12, 11), (11, 15)),
            *("6.57", "141.5", "81.68"),
        ),
        (  # BC-GHS
            *("D4", (51, 62, 125, 128, 228, 129, 38, 13, 9, 6, 5, 6, 6), (6, 20)),
            *("5.40", "121.9", "74.82"),
        ),
        ("D6", (32, 64, 128, 128, *(256,) * 9), (512,), "35.99", "206.3", "83.97"),  # PF
        (  # SBP
            *("D6", (64, 62, 128, 126, 234, 155, 31, 79, 73, 9, 59, 73, 56), (27,)),
            *("7.01", "136.0", "80.72"),
        ),
        (  # SBPa
            *("D6", (44, 54, 92, 115, 234, 155, 31, 76, 55, 9, 34, 35, 21), (280,)),
            *("5.78", "99.20", "66.46"),
        ),
    ],
    ids=["BC-GNJ", "BC-GHS", "PF", "SBP", "SBPa"],
)
def test_rows_of_table_3_follow_from_their_structures(variant, convs, hidden, r_w, mega_macs, r_n):
    found = ratios(vgg(variant, convs, hidden), vgg(variant))
    assert near(found.weights, r_w)
    assert near(found.macs / 1e6, mega_macs)
    assert near(found.neurons, r_n)


def test_measure_takes_the_time_where_asked():
    model = nn.Linear(3, 2)
    assert measure(model, torch.zeros(1, 3)).latency is None
    one, many = measure(model, torch.zeros(1, 3), latency=True).latency
    assert one > 0
    assert many > 0


def test_costs_and_ratios_print_as_a_table_and_a_line():
    base = Cost(1000, 2_000_000, 0, 50, 1100, 4400, 5000, (0.001, 0.0205))
    lines = str(base).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == ["macs", "2,000,000"]
    assert lines[-1].split() == ["ms", "at", "batch", "32", "20.500"]
    small = Cost(100, 500_000, 0, 25, 110, 440, 500)
    assert str(ratios(small, base)) == "r_W 10.00 %, 0.500 M macs, r_N 50.00 %"


def test_a_ratio_to_nothing_is_refused():
    nothing = measure(nn.ReLU(), torch.zeros(1, 3))
    with pytest.raises(ConfigError, match="base has no weights"):
        ratios(nothing, nothing)


def test_the_papers_lenet300_is_counted_on_a_really_pruned_one():
    base = lenet300()
    kept = {"inputs": list(range(0, 776, 8)), "fc1": list(range(71)), "fc2": list(range(33))}
    image = torch.rand(2, 1, 28, 28)
    ratio = ratios(really(LeNet300100(), image, kept, inputs=True), base)
    assert (round(ratio.weights, 2), round(ratio.neurons, 2)) == (3.59, 16.98)


@pytest.mark.parametrize(
    ("structure", "r_w", "mega_macs", "r_n"),
    [
        ((3, 12, 192, 500), "23.69", "0.201", "19.35"),
        ((3, 18, 284, 283), "19.66", "0.213", "21.15"),
    ],
)
def test_rows_of_table_2_are_counted_on_really_pruned_networks(structure, r_w, mega_macs, r_n):
    conv1, conv2, features, hidden = structure
    kept = {
        "conv1": list(range(conv1)),
        "conv2": list(range(conv2)),
        "fc1:features": list(range(features)),
        "fc1": list(range(hidden)),
    }
    base = measure(LeNet5Caffe(), MNIST, features=["fc1"])
    small = really(LeNet5Caffe(), torch.rand(2, 1, 28, 28), kept, features=["fc1"])
    ratio = ratios(small, base)
    assert near(ratio.weights, r_w)
    assert near(ratio.macs / 1e6, mega_macs)
    assert near(ratio.neurons, r_n)


def test_inputs_that_are_read_whole_elsewhere_count_whole():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3), nn.Linear(3, 6)

        def forward(self, x):
            return x + self.b(torch.relu(self.a(x)))

    cost = really(Two(), torch.rand(2, 6), {"inputs": [0, 5]}, inputs=True)
    assert cost.neurons == 6 + 3 + 6  # inputs, hidden units, and what is added to the inputs

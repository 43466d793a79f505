"""Costs follow the paper's rules: its base totals and its published rows, exactly."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vibnet.cost import Cost, latency, measure, ratios
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


def test_latency_is_positive_and_restores_modes_and_threads():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    threads = torch.get_num_threads()
    found = latency(model, torch.zeros(3, 4), 2, threads=threads + 1, seconds=0.01)
    assert isinstance(found, float)
    assert found > 0
    assert torch.get_num_threads() == threads
    assert [module.training for module in model.modules()] == modes
    assert model[2].num_batches_tracked == 0


def test_latency_repeats_the_first_row_and_restores_modes_after_an_error():
    seen = []

    class Seen(nn.Module):
        def forward(self, x):
            seen.append(x)
            if x.shape[0] == 7:
                raise RuntimeError("seven rows")
            return x

    model = Seen()
    latency(model, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 5, seconds=0.001)
    assert torch.equal(seen[0], torch.tensor([[1.0, 2.0]] * 5))
    with pytest.raises(RuntimeError, match="seven rows"):
        latency(model, torch.zeros(1, 2), 7)
    assert model.training


def test_measure_takes_the_time_where_asked():
    model = nn.Linear(3, 2)
    assert measure(model, torch.zeros(1, 3)).latency is None
    one, many = measure(model, torch.zeros(1, 3), latency=True).latency
    assert one > 0
    assert many > 0


@pytest.mark.parametrize("setting", [{"batch": 0}, {"threads": 0}, {"seconds": 0}])
def test_a_latency_without_rows_threads_or_time_is_refused(setting):
    with pytest.raises(ConfigError, match="must be positive"):
        latency(nn.Linear(3, 2), torch.zeros(1, 3), **{"batch": 1, **setting})


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

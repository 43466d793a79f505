import numpy as np
import pytest
import torch
from torch import nn

from vibnet import attach, measure, penalty, prune
from vibnet.errors import ConfigError
from vibnet.graph.sites.prices import PRICES, cuttable, totals
from vibnet.graph.trial.probe import analyse
from vibnet.information import from_authors_code
from vibnet.zoo import VGG, LeNet5Caffe

IMAGE = torch.zeros(2, 1, 28, 28)
# The authors' five settings: variant, classes, kl_fac, and loss per log(1 + snr) of a unit in the
# first block, the last convolution and the hidden linear layer.
AUTHORS = {
    "table 3, BC": ("D4", 10, 1.4e-5, (2.24e-4, 1.4e-5, 7e-6)),
    "table 3, PF": ("D6", 10, 3e-5, (4.8e-4, 3e-5, 1.5e-5)),
    "table 3, NS": ("G5", 10, 1e-5, (1.6e-4, 1e-5, None)),
    "table 4, RNP": ("G", 100, 1e-5, (1.6e-4, 1e-5, 5e-6)),
    "table 4, NS": ("G5", 100, 1.5e-5, (2.4e-4, 1.5e-5, None)),
}


def weights(gated):
    return {s.name: s.weight for s in gated.sites}


def lenet(weights):
    return attach(LeNet5Caffe(), IMAGE, features=["fc1"], weights=weights)


@pytest.mark.parametrize("row", AUTHORS)
def test_width_is_the_kl_fac_of_the_authors_code(row):
    variant, classes, kl_fac, (first, last, hidden) = AUTHORS[row]
    gated = attach(VGG(variant, classes), torch.zeros(2, 3, 32, 32), weights="width")
    gamma = from_authors_code(kl_fac)
    convs = [s for s in gated.sites if gated.model.get_submodule(s.name)._get_name() == "Conv2d"]
    linear = [s for s in gated.sites if s not in convs]
    assert 0.5 * gamma * convs[0].weight == pytest.approx(first)
    assert 0.5 * gamma * convs[-1].weight == pytest.approx(last)
    assert [0.5 * gamma * s.weight for s in linear] == pytest.approx(
        [] if hidden is None else [hidden] * len(linear)
    )
    code = 0.0  # their loss, as their code writes it: kl_mult undoes the height
    for site, gate in gated.all_gates():
        snr = gate.mu**2 / gate.log_var.exp()
        height = width = site.weight
        kl_mult = 1 / height
        code += 0.5 * kl_mult * height * width * torch.log1p(snr).sum().item()
    assert penalty(gated, gamma).item() == pytest.approx(kl_fac * code, rel=1e-5)
    if row == "table 3, BC":
        assert penalty(gated, gamma).item() == pytest.approx(1.55, abs=0.01)


def test_area_and_width_are_those_of_the_map_before_pooling():
    assert weights(lenet("area")) == {"conv1": 576, "conv2": 64, "fc1:features": 1, "fc1": 1}
    assert weights(lenet("width")) == {"conv1": 24, "conv2": 8, "fc1:features": 1, "fc1": 1}
    assert weights(lenet("uniform")) == {"conv1": 1, "conv2": 1, "fc1:features": 1, "fc1": 1}


def test_relative_prices_are_one_in_the_mean():
    for name in ("macs", "params", "memory"):
        gated = lenet(name)
        total = sum(s.weight * s.size for s in gated.sites)
        assert total == pytest.approx(sum(s.size for s in gated.sites))


@pytest.mark.parametrize(("name", "field"), [("macs", "macs"), ("params", "parameters")])
def test_what_a_unit_costs_is_what_goes_with_it(name, field):
    base = measure(LeNet5Caffe(), IMAGE)
    smaller = {
        "conv1": LeNet5Caffe(conv1=19),
        "conv2": LeNet5Caffe(conv2=49),
        "fc1": LeNet5Caffe(hidden=499),
    }
    sites = {s.name: s for s in attach(LeNet5Caffe(), IMAGE).sites}
    for site, model in smaller.items():
        gone = getattr(base, field) - getattr(measure(model, IMAGE), field)
        assert sites[site].costs[name] == gone


def test_the_memory_of_a_unit_is_its_weights_and_its_map():
    costs = {s.name: s.costs for s in lenet("uniform").sites}
    assert costs["conv1"]["memory"] == costs["conv1"]["params"] + 24 * 24


def test_a_residual_site_takes_the_largest_map_of_its_writers():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, stride=2, padding=1)
            self.out = nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.a(x).mean((2, 3)) + self.b(x).mean((2, 3)))

    gated = attach(Mixed(), torch.zeros(2, 1, 8, 8), weights="area")
    assert weights(gated) == {"a": 64}


def test_an_unknown_price_is_named():
    with pytest.raises(ConfigError, match=rf"weights must be one of {', '.join(PRICES)}.*'flops'"):
        lenet("flops")


def test_prices_by_name_and_by_number_can_be_mixed():
    mixed = {"conv1": "area", "conv2": 3, "fc1": "width"}
    assert weights(lenet(mixed)) == {"conv1": 576, "conv2": 3, "fc1:features": 1, "fc1": 1}


@pytest.mark.parametrize("bad", ["macs", -1, float("nan"), float("inf"), None, "size"])
def test_a_price_that_is_none_is_named(bad):
    with pytest.raises(ConfigError, match="weights must map gated sites to finite numbers"):
        lenet({"conv1": bad})


def test_totals_are_what_a_cut_model_costs():
    gated = lenet("uniform")
    gated.gate("conv1").log_var.data[:5] = 5.0
    gated.gate("fc1:features").log_var.data[::2] = 5.0
    kept = gated.kept()
    small, _ = prune(gated)
    cost = measure(small, IMAGE)
    assert totals(gated.graph, kept) == (cost.weights, cost.macs)


def test_totals_of_a_grouped_convolution_count_each_group():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3, groups=2), nn.Conv2d(6, 2, 1))
    example = torch.zeros(2, 3, 6, 6)
    gated = attach(model, example)
    gated.gate("0").log_var.data[[0, 5]] = 5.0
    gated.gate("1").log_var.data[[1, 4]] = 5.0
    small, _ = prune(gated)
    cost = measure(small, example)
    assert totals(gated.graph, gated.kept()) == (cost.weights, cost.macs)


def test_shares_are_what_lies_in_rows_and_columns_of_sites():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 2, bias=False)
            self.d = nn.Linear(4, 4)

        def forward(self, x):
            return self.c(self.d(x) + x + self.b(self.a(x).relu()))

    graph = analyse(Summed(), torch.randn(3, 4))
    whole, stays = 24 + 24 + 8 + 16, 8 + 16
    assert cuttable(graph) == pytest.approx(
        {"weights": 1 - stays / whole, "macs": 1 - stays / whole}
    )
    assert cuttable(analyse(nn.Linear(3, 2), torch.zeros(2, 3))) == {"weights": 0.0, "macs": 0.0}


def test_a_model_without_units_has_its_own_totals():
    graph = analyse(nn.Linear(3, 2), torch.zeros(2, 3))
    assert totals(graph, np.ones(0, dtype=bool)) == (6, 6)


class Strided(nn.Module):
    """A map that is halved by a convolution and doubled again by a transposed one."""

    def __init__(self, first=4, second=6):
        super().__init__()
        self.down = nn.Conv2d(1, first, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(first, second, 2, stride=2)
        self.out = nn.Conv2d(second, 2, 1)

    def forward(self, x):
        return self.out(torch.relu(self.up(torch.relu(self.down(x)))))


class Shared(nn.Module):
    """A layer that an example calls three times."""

    def __init__(self, hidden=5):
        super().__init__()
        self.a, self.b = nn.Linear(4, hidden), nn.Linear(hidden, 4)

    def forward(self, x):
        for _ in range(3):
            x = self.b(torch.relu(self.a(x)))
        return x


@pytest.mark.parametrize(
    ("whole", "smaller", "site", "example"),
    [
        (Strided(), Strided(first=3), "down", torch.zeros(2, 1, 8, 8)),
        (Strided(), Strided(second=5), "up", torch.zeros(2, 1, 8, 8)),
        (Shared(), Shared(4), "a", torch.zeros(2, 4)),
        (Shared(), Shared(4), "a", torch.zeros(2, 7, 4)),
    ],
)
def test_multiply_adds_of_a_unit_count_strides_and_calls(whole, smaller, site, example):
    graph = analyse(whole, example)
    costs = next(s.costs for s in graph.sites if s.name == site)
    base = measure(whole, example).macs
    assert costs["macs"] == base - measure(smaller, example).macs
    assert totals(graph, np.ones(graph.total, dtype=bool))[1] == base

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from vibnet import attach, plan, prune
from vibnet.errors import NoSitesError, PlanError
from vibnet.graph.sites.nested import nesting
from vibnet.graph.sites.structure import Request
from vibnet.graph.trial.cut import cut
from vibnet.graph.trial.probe import analyse
from vibnet.layers import SelectedLinear
from vibnet.surgery.plan import mask, of_graph
from vibnet.zoo import LeNet5Caffe, LeNet300100

IMAGE = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))


class Conv(nn.Module):
    """Three channels of four pixels, flattened: features 0-3, 4-7 and 8-11."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.fc = nn.Linear(12, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, x):
        return self.out(torch.relu(self.fc(torch.relu(self.conv(x)).flatten(1))))


SMALL = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def close(gated, site, units):
    gated.gate(site).log_var.data[units] = 5.0


def test_features_are_nested_in_the_channels_that_make_them():
    graph = analyse(Conv(), SMALL, Request(features=("fc",)))
    assert [(s.name, s.size) for s in graph.sites] == [("conv", 3), ("fc:features", 12), ("fc", 5)]
    conv, features, _ = graph.sites
    inner = nesting(graph)
    assert np.array_equal(inner.children, features.units)
    assert np.array_equal(inner.parents, np.repeat(conv.units, 4))
    assert np.array_equal(inner.dependent, conv.units)


def test_inputs_are_nested_in_nothing():
    graph = analyse(LeNet300100(), IMAGE, Request(inputs=True))
    assert [(s.name, s.size) for s in graph.sites] == [("inputs", 784), ("fc1", 300), ("fc2", 100)]
    assert len(nesting(graph).children) == 0


def test_a_feature_closes_with_its_channel_and_a_channel_with_its_features():
    gated = attach(Conv(), SMALL, features=["fc"])
    close(gated, "conv", [0])
    close(gated, "fc:features", [4, 5, 6, 7, 9])
    kept = plan(gated).kept
    assert kept["conv"] == [2]
    assert kept["fc:features"] == [8, 10, 11]
    small, report = prune(gated)
    assert isinstance(small.fc, SelectedLinear)
    assert small.conv.out_channels == 1
    assert small.fc.index.tolist() == [0, 2, 3]
    assert report.selected == {"fc": 3}
    assert "fc picks its 3 features by index" in str(report)


def test_a_channel_that_others_read_outlives_its_features():
    class Two(Conv):
        def __init__(self):
            super().__init__()
            self.other = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            h = torch.relu(self.conv(x))
            return self.out(torch.relu(self.fc(h.flatten(1)))), self.other(h)

    gated = attach(Two(), SMALL, features=["fc"])
    close(gated, "fc:features", range(4))
    assert plan(gated).kept["conv"] == [0, 1, 2]
    small, _ = prune(gated)
    assert small.fc.index.tolist() == list(range(4, 12))


def test_whole_channels_need_no_index():
    gated = attach(Conv(), SMALL, features=["fc"])
    close(gated, "conv", [1])
    small, report = prune(gated)
    assert type(small.fc) is nn.Linear
    assert small.fc.in_features == 8
    assert report.selected == {}


def test_a_wholly_closed_pair_keeps_one_unit_of_each():
    gated = attach(Conv(), SMALL, features=["fc"])
    close(gated, "conv", range(3))
    gated.gate("fc:features").mu.data[6] = 2.0  # the best feature, of the middle channel
    small, _ = prune(gated)
    kept = plan(gated).kept
    assert kept["conv"] == [1]
    assert kept["fc:features"] == [6]
    assert small.fc.in_features == 1


def test_the_multipliers_of_a_feature_and_its_channel_compose_by_product():
    torch.manual_seed(0)
    model = Conv()
    gated = attach(model, SMALL, features=["fc"])
    for gate in gated.gates.values():
        gate.mu.data.fill_(1.0)
    gated.gate("conv").mu.data[1] = 3.0
    gated.gate("fc:features").mu.data[5] = -0.5
    small, _ = prune(gated)
    ratio = small.fc.weight / model.fc.weight
    expected = torch.ones(12)
    expected[4:8] = 3.0
    expected[5] = -1.5
    torch.testing.assert_close(ratio, expected.expand(5, 12))


def test_both_gates_are_penalised_and_drawn():
    gated = attach(Conv(), SMALL, features=["fc"])
    assert [len(g.mu) for _, g in gated.all_gates()] == [3, 12, 5]
    gated.train()
    gated(SMALL)[0].sum().backward()
    assert all((g.mu.grad != 0).any() for _, g in gated.all_gates())


def test_one_input_site_serves_all_layers_that_read_the_input():
    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 3)
            self.c, self.d = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, x):
            x = x.flatten(1)
            return self.c(torch.relu(self.a(x))) + self.d(torch.tanh(self.b(x)))

    gated = attach(Towers(), torch.randn(2, 2, 3), inputs=True)
    close(gated, "inputs", [0, 3])
    small, _ = prune(gated)
    assert small.a.index.tolist() == small.b.index.tolist() == [1, 2, 4, 5]
    assert [s.readers for s in gated.sites if s.name == "inputs"] == [("a", "b")]


def test_a_plan_carries_the_request_to_the_plain_model():
    model = LeNet5Caffe()
    whole = plan(model, IMAGE, features=["fc1"])
    assert whole.request == Request(features=("fc1",))
    gated = attach(model, IMAGE, features=["fc1"])
    close(gated, "fc1:features", range(0, 800, 3))
    wanted = type(whole).from_json(plan(gated).to_json())
    small, _ = prune(model, wanted, IMAGE)
    assert small.fc1.in_features == 533


def test_a_plan_that_says_nothing_of_features_lets_them_follow_their_channels():
    model = Conv()
    wanted = plan(model, SMALL, features=["fc"])
    wanted.kept["conv"] = [0, 2]
    del wanted.kept["fc:features"]
    small, _ = prune(model, wanted, SMALL)
    assert type(small.fc) is nn.Linear
    assert small.fc.in_features == 8


def test_a_plan_that_keeps_a_feature_of_a_closed_channel_is_refused():
    model = Conv()
    wanted = plan(model, SMALL, features=["fc"])
    wanted.kept["conv"] = [0, 2]
    with pytest.raises(PlanError, match=r"keeps feature 4 of fc:features, but not the unit"):
        prune(model, wanted, SMALL)


def test_a_feature_is_named_by_its_number_before_the_first_cut():
    graph = analyse(Conv(), SMALL, Request(("fc",)))
    later = {s.name: np.arange(s.size) + 1 for s in graph.sites}
    graph.sites = [dataclasses.replace(s, original=later[s.name]) for s in graph.sites]
    wanted = of_graph(graph, np.ones(graph.total, dtype=np.bool_))
    wanted.kept["conv"] = wanted.kept["conv"][1:]
    with pytest.raises(PlanError, match=r"keeps feature 1 of fc:features, but not the unit"):
        mask(graph, wanted)


class Permuted(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 4), nn.Linear(6, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(torch.relu(self.a(x.flatten(1)) + self.b(x.transpose(1, 2).flatten(1))))


class Doubled(nn.Module):
    """Its layer's input is used for something else inside the layer's own call."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(torch.relu(self.a(x)) @ self.a.weight)


class Expanded(nn.Module):
    """Two layers read the same three numbers twice over, side by side and one after another."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        a = self.a(x.view(-1, 1, 3).expand(-1, 2, 3).reshape(-1, 6))
        return self.out(torch.relu(a + self.b(x.view(-1, 3, 1).expand(-1, 3, 2).reshape(-1, 6))))


class Summed(nn.Module):
    """Its layer's weight has a use that reads nothing."""

    def __init__(self):
        super().__init__()
        self.a, self.out = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(torch.relu(self.a(x))) + self.a.weight.sum()


@pytest.mark.parametrize(
    ("model", "example", "options", "message"),
    [
        (Conv, SMALL, {"features": ["fcc"]}, r"'fcc', which is no module of Conv.*fc, out"),
        (Conv, SMALL, {"features": ["conv"]}, r"'conv', which is a Conv2d of Conv"),
        (Conv, SMALL, {"features": ["fc", "fc"]}, r"names a layer twice"),
        (Conv, SMALL, {"inputs": True}, r"no linear layer of Conv reads its inputs"),
        (LeNet300100, IMAGE, {"inputs": True, "features": ["fc1"]}, r"inputs=True makes its site"),
        (Permuted, torch.ones(2, 2, 3), {"inputs": True}, r"a, b read .*different orders"),
        (Expanded, torch.ones(2, 3), {"inputs": True}, r"a, b read .*different orders"),
        (Summed, torch.ones(2, 6), {"features": ["a"]}, r"'a', whose own input .* another use"),
        (Doubled, torch.ones(2, 6), {"features": ["a"]}, r"'a', whose own input .* another use"),
    ],
)
def test_what_cannot_be_nested_is_refused_by_name(model, example, options, message):
    with pytest.raises(NoSitesError, match=message):
        attach(model(), example, **options)


class Joined(nn.Module):
    """One layer reads the channels of two convolutions, flattened."""

    def __init__(self):
        super().__init__()
        self.conv, self.more = nn.Conv2d(1, 3, 2), nn.Conv2d(1, 2, 2)
        self.fc, self.out = nn.Linear(20, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = torch.cat([self.conv(x), self.more(x)], 1)
        return self.out(torch.relu(self.fc(torch.relu(h).flatten(1))))


def test_features_of_several_writers_come_after_all_of_them_and_name_them():
    graph = analyse(Joined(), SMALL, Request(features=("fc",)))
    assert [s.name for s in graph.sites] == ["conv", "more", "fc:features", "fc"]
    assert graph.sites[2].writers == ("conv", "more")


def test_inputs_that_nothing_writes_are_all_there_for_a_cut():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    graph = analyse(model, torch.ones(2, 6), Request(inputs=True))
    kept = np.ones(graph.total, bool)
    kept[next(s.units for s in graph.sites if s.name == "inputs")[[0, 3]]] = False
    cut(model, graph, kept)
    assert model[0].index.tolist() == [1, 2, 4, 5]
    assert model[0].weight.shape == (4, 4)

import copy

import numpy as np
import pytest
import torch
from torch import nn

import vibnet
from vibnet.errors import CaptureError, NoSitesError
from vibnet.graph.sites.structure import Request, fingerprint
from vibnet.graph.trial.probe import analyse
from vibnet.layers import SelectedLinear
from vibnet.recipes.run import fingerprint_of_weights
from vibnet.train.shrink import shrink
from vibnet.zoo import LeNet5Caffe, LeNet300100

IMAGE = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
NETWORKS = {
    "inputs": (LeNet300100, {"inputs": True}),
    "features": (LeNet5Caffe, {"features": ["fc1"]}),
}


def closed(model, options, share, seed=0):
    """A gated copy in which some units of every site are closed."""
    gated = vibnet.attach(model, IMAGE, **options)
    with torch.no_grad():
        torch.manual_seed(seed)
        for site, gate in gated.all_gates():
            gate.mu.uniform_(0.5, 1.5)
            gate.log_var[torch.rand(site.size) < share] = 9.0
    return gated


def cut_once(kind, share=0.5):
    torch.manual_seed(1)
    make, options = NETWORKS[kind]
    small, _ = vibnet.prune(closed(make(), options, share))
    return small, options, make


def same_answers(a, b):
    with torch.no_grad():
        old, new = (m.eval().double()(IMAGE.double()) for m in (copy.deepcopy(a), copy.deepcopy(b)))
    return float((old - new).abs().max() / old.abs().max())


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_picks_already_is_gated_and_cut_a_second_time_exactly(kind):
    small, options, _ = cut_once(kind)
    before = fingerprint_of_weights(small)
    gated = closed(small, options, 0.4, seed=2)
    again, report = vibnet.prune(gated)
    assert fingerprint_of_weights(small) == before
    assert report.difference < 1e-14
    assert same_answers(gated, again) < 1e-6  # the means have gone into weights of 32 bits
    assert again.fc1.in_features < small.fc1.in_features
    assert again.fc1.out_features < small.fc1.out_features
    assert type(again.fc1) is SelectedLinear
    assert vibnet.measure(again, IMAGE).weights < vibnet.measure(small, IMAGE).weights


@pytest.mark.parametrize("kind", NETWORKS)
def test_an_open_second_cut_is_the_same_network(kind):
    small, options, _ = cut_once(kind)
    equal, report = vibnet.prune(small, vibnet.plan(small, IMAGE, **options), IMAGE)
    assert report.unchanged
    assert fingerprint_of_weights(equal) == fingerprint_of_weights(small)


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_graph_is_of_the_model_that_picks(kind):
    small, options, _ = cut_once(kind)
    graph = analyse(small, IMAGE, Request.of(options.get("features", ()), "inputs" in options, ()))
    assert graph.source == fingerprint(small)
    for name, value in small.named_parameters():
        assert tuple(len(units) for units in graph.parameters[name]) == tuple(value.shape)
    site = next(s for s in graph.sites if s.nested)
    assert site.size == site.units.size == small.fc1.in_features
    assert (site.first, site.positions.tolist()) == (0, list(range(site.size)))
    stay = np.flatnonzero(graph.nested[0].units >= 0)
    assert stay.tolist() == small.fc1.index.tolist()
    assert site.costs["params"] == pytest.approx(small.fc1.out_features)
    rows = next(s for s in graph.sites if s.name == "fc1")
    weights = small.fc1.in_features + small.fc2.out_features
    assert rows.costs["params"] == pytest.approx(weights + 1)
    assert rows.costs["memory"] == pytest.approx(weights + 2)
    assert rows.costs["macs"] == pytest.approx(weights)
    every = np.ones(graph.total, bool)
    cost = vibnet.measure(small, IMAGE)
    assert vibnet.graph.sites.prices.totals(graph, every) == (cost.weights, cost.macs)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_second_cut_is_saved_and_loaded_against_the_first(kind, tmp_path):
    small, options, make = cut_once(kind)
    again, _ = vibnet.prune(closed(small, options, 0.4, seed=2))
    vibnet.save(small, tmp_path / "first")
    vibnet.save(again, tmp_path / "second")
    first = vibnet.load(tmp_path / "first", make())
    second = vibnet.load(tmp_path / "second", first)
    assert fingerprint_of_weights(second) == fingerprint_of_weights(again)
    assert torch.equal(second(IMAGE), again(IMAGE))


def test_a_layer_that_comes_to_read_all_it_is_given_is_plain_again_when_loaded_too(tmp_path):
    torch.manual_seed(1)
    gated = vibnet.attach(LeNet5Caffe(), IMAGE, features=["fc1"])
    with torch.no_grad():
        gated.gate("fc1:features").log_var[:8] = 9.0  # half of the first channel's features
    small, _ = vibnet.prune(gated)
    assert small.fc1.given == 800
    gated = vibnet.attach(small, IMAGE, features=["fc1"])
    with torch.no_grad():
        gated.gate("conv2").log_var[0] = 9.0
    again, _ = vibnet.prune(gated)
    assert type(again.fc1) is nn.Linear
    vibnet.save(again, tmp_path / "out")
    loaded = vibnet.load(tmp_path / "out", small)
    assert type(loaded.fc1) is nn.Linear
    assert loaded.fc1.in_features == 784
    assert torch.equal(loaded(IMAGE), again(IMAGE))


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_trains_and_shrinks_after_a_second_attach(kind):
    small, options, _ = cut_once(kind)
    gated = closed(small, options, 0.3, seed=3).train()
    steps = torch.optim.Adam(gated.parameters(), 1e-3)
    for _ in range(2):
        gated(IMAGE).square().mean().backward()
        steps.step()
        steps.zero_grad()
        shrink(gated, steps)
    again, report = vibnet.prune(gated)
    assert report.difference < 1e-14
    assert again.fc1.in_features < small.fc1.in_features


def test_only_what_is_asked_for_is_made_whole():
    small, _, _ = cut_once("features")
    with pytest.raises(NoSitesError, match=r"no linear layer of LeNet5Caffe reads its inputs"):
        vibnet.attach(small, IMAGE, inputs=True)
    gated = vibnet.attach(small, IMAGE)
    assert [s.name for s in gated.sites] == ["conv1", "fc1"]
    reasons = {s.name: s.reason for s in gated.graph.pinned}
    assert "or name it in features" in reasons["conv2"]


class Two(nn.Module):
    """Two layers read the inputs, one reads what a third has made of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 6), nn.Linear(8, 5), nn.Linear(11, 2)

    def forward(self, x):
        return self.c(torch.relu(torch.cat([self.a(x), self.b(x)], 1)))


def shut(gated, units):
    with torch.no_grad():
        for site, positions in units.items():
            gated.gate(site).log_var[positions] = 9.0


X = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))


def test_two_layers_that_pick_the_same_inputs_are_cut_together_again():
    gated = vibnet.attach(Two(), X, inputs=True, features=["c"])
    shut(gated, {"inputs": [0, 3]})
    small, _ = vibnet.prune(gated)
    assert small.a.index.tolist() == small.b.index.tolist() == [1, 2, 4, 5, 6, 7]
    SelectedLinear.of(small.c, torch.tensor([*range(5), *range(6, 11)]), 11)
    small.c.weight, small.c.in_features = nn.Parameter(torch.randn(2, 10)), 10
    gated = vibnet.attach(small, X, inputs=True)
    shut(gated, {"inputs": [0, 5]})
    again, report = vibnet.prune(gated)
    assert again.a.index.tolist() == again.b.index.tolist() == [2, 4, 5, 6]
    assert torch.equal(again.c.index, small.c.index)
    assert report.difference < 1e-14


@pytest.mark.parametrize("index", [[0, 1, 2], None])
def test_layers_of_one_site_that_pick_other_inputs_are_refused_by_name(index):
    model = Two()
    model.a = SelectedLinear.of(nn.Linear(3, 6), torch.tensor([1, 2, 5]), 8)
    if index:
        model.b = SelectedLinear.of(nn.Linear(3, 5), torch.tensor(index), 8)
    with pytest.raises(NoSitesError, match=r"inputs=True, but .* pick different inputs. Name one"):
        vibnet.attach(model, X, inputs=True)
    assert vibnet.attach(model, X, features=["a"]).gate("a:features").mu.shape == (3,)


@pytest.mark.parametrize("index", [[5, 1, 2], [1, 1, 2]])
def test_picks_out_of_order_stay_as_they_are_and_that_is_said(index):
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    SelectedLinear.of(model[0], torch.tensor(index), 8)
    with pytest.raises(NoSitesError, match=r"0 of Sequential picks what .* not in order"):
        vibnet.attach(model, X, inputs=True)
    assert vibnet.attach(model, X).sites[0].name == "0"


@pytest.mark.parametrize("where", ["elsewhere", "itself"])
def test_a_weight_that_is_registered_twice_is_not_made_whole(where):
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    SelectedLinear.of(model[0], torch.tensor([1, 2, 6]), 8)
    model[2 if where == "elsewhere" else 0].register_parameter(
        "weight" if where == "elsewhere" else "again", model[0].weight
    )
    with pytest.raises(NoSitesError, match=r"or shares its weight"):
        vibnet.attach(model, X, inputs=True)


class Held(nn.Module):
    """Uses a layer's weight once more, by a list."""

    def __init__(self):
        super().__init__()
        self.f, self.out = nn.Linear(3, 6), nn.Linear(6, 2)
        SelectedLinear.of(self.f, torch.tensor([1, 2, 6]), 8)
        self.weights = [self.f.weight]

    def forward(self, x):
        return self.out(torch.relu(self.f(x))) + self.weights[0].sum()


def test_a_weight_with_another_use_is_seen_behind_a_list():
    with pytest.raises(NoSitesError, match=r"whose own input .* another use"):
        vibnet.attach(Held(), X, features=["f"])


class Tied(nn.Module):
    """A layer whose weight is a table's too."""

    def __init__(self):
        super().__init__()
        self.f, self.out, self.table = nn.Linear(3, 6), nn.Linear(6, 2), nn.Embedding(6, 3)
        SelectedLinear.of(self.f, torch.tensor([1, 2, 6]), 8)
        self.table.weight = self.f.weight

    def forward(self, x):
        return self.out(torch.relu(self.f(x))) + self.table(torch.tensor([4])).sum()


@pytest.mark.parametrize("options", [{"inputs": True}, {"features": ["f"]}])
def test_a_weight_that_is_a_table_s_too_is_not_made_whole(options):
    with pytest.raises(NoSitesError, match=r"or shares its weight, so it"):
        vibnet.attach(Tied(), X, **options)


def picking():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    SelectedLinear.of(model[0], torch.tensor([1, 2, 6]), 8)
    return model


def test_buffers_cost_no_weights():
    sites = {s.name: s for s in analyse(picking(), X, Request(inputs=True)).sites}
    assert sites["0"].costs["params"] == pytest.approx(3 + 1 + 2 + 2)


def test_what_cannot_be_copied_says_so_as_it_does_elsewhere():
    model = picking()
    model.last = model(X)
    with pytest.raises(CaptureError, match=r"cannot be copied: last"):
        vibnet.attach(model, X, inputs=True)


def test_the_default_device_is_no_matter():
    model = picking()
    with torch.device("meta"):
        assert "inputs" in vibnet.plan(model, X, inputs=True).kept


def test_numbers_that_are_on_the_meta_device_are_not_known_and_that_is_said():
    model = picking().to("meta")
    for options in ({"inputs": True}, {"features": ["0"]}):
        with pytest.raises(NoSitesError, match=r"numbers are not known \(on the meta device\)"):
            vibnet.plan(model, X, **options)
    model = picking()
    model[0].weight = nn.Parameter(model[0].weight.to("meta"))
    assert [s.name for s in analyse(model, X, Request(inputs=True)).sites] == ["inputs", "0"]


class Branch(nn.Module):
    """A residual branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Linear(8, 7), nn.Linear(7, 6)
        self.b, self.out = nn.Linear(6, 7), nn.Linear(7, 2)

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        return self.out(h + self.b(torch.relu(self.a(h))))


def cut_branch(model, units):
    """What is left of a branch network when those units are closed."""
    gated = vibnet.attach(model, X, features=["a"], remove_branches=True)
    shut(gated, units)
    return vibnet.prune(gated)


def test_a_layer_that_picked_and_is_a_constant_now_is_loaded(tmp_path):
    torch.manual_seed(0)
    small, _ = cut_branch(Branch(), {"a:features": [0, 3]})
    again, _ = cut_branch(small, {"stem": [0, 3], "a": range(6)})
    assert "a" in vibnet.surgery.prune.report_of(again).constants
    vibnet.save(again, tmp_path / "out")
    assert torch.equal(vibnet.load(tmp_path / "out", small)(X), again(X))


def test_a_layer_that_picks_goes_with_its_branch_as_a_plain_one_does(tmp_path):
    torch.manual_seed(0)
    small, _ = cut_branch(Branch(), {"a:features": [0, 3]})
    for model in (Branch(), small):
        cut, report = cut_branch(model, {"a": range(6)})
        assert {"a", "b"} == {*vibnet.surgery.prune.report_of(cut).constants}
        assert sum(p.numel() for p in cut.parameters()) == 63 + 7 + 16
        assert report.difference < 1e-14
    vibnet.save(cut, tmp_path / "out")
    assert torch.equal(vibnet.load(tmp_path / "out", small)(X), cut(X))


def test_a_layer_of_two_names_is_loaded_after_each_cut(tmp_path):
    def twice():
        model = Branch()
        model.again = model.stem
        return model

    gated = vibnet.attach(twice(), X, inputs=True)
    shut(gated, {"inputs": [0, 3]})
    small, _ = vibnet.prune(gated)
    vibnet.save(small, tmp_path / "first")
    first = vibnet.load(tmp_path / "first", twice())
    assert torch.equal(first(X), small(X))
    assert first.again is first.stem
    gated = vibnet.attach(small, X, inputs=True)
    shut(gated, {"inputs": [1]})
    again, _ = vibnet.prune(gated)
    vibnet.save(again, tmp_path / "second")
    assert torch.equal(vibnet.load(tmp_path / "second", first)(X), again(X))

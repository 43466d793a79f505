import copy

import numpy as np
import pytest
import torch
from laws import close_units, law_one
from networks import NETWORKS
from torch import nn

from vibnet import attach, prune
from vibnet.errors import PlanError, VerificationError
from vibnet.graph.trial.cut import cut, positions, renumber, shape_only, take
from vibnet.graph.trial.probe import analyse
from vibnet.graph.trial.restrict import restrict

X = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def analysed(*layers):
    torch.manual_seed(0)
    model = nn.Sequential(*layers)
    return model, analyse(model, X)


def keep(graph, site, chosen):
    kept = np.ones(graph.total, bool)
    units = next(s.units for s in graph.sites if s.name == site)
    kept[units] = False
    kept[units[chosen]] = True
    return kept


def test_taking_positions_is_what_numpy_does_and_gives_a_copy():
    value = torch.randn(4, 5, 2)
    out = take(value, [np.array([0, 3]), np.array([1, 2, 4]), np.array([0, 1])])
    assert np.array_equal(out.numpy(), value.numpy()[np.ix_([0, 3], [1, 2, 4], [0, 1])])
    whole = take(value, [np.arange(4), np.arange(5), np.arange(2)])
    assert torch.equal(whole, value)
    assert whole.data_ptr() != value.data_ptr()
    assert shape_only(value, [np.arange(2), np.arange(3), np.arange(1)]).shape == (2, 3, 1)


def test_a_cut_takes_rows_of_writers_and_columns_of_readers():
    model, graph = analysed(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.PReLU(6), nn.Conv2d(6, 2, 1))
    small = copy.deepcopy(model)
    record = cut(small, graph, keep(graph, "0", [1, 4]))
    assert torch.equal(small[0].weight, model[0].weight[[1, 4]])
    assert torch.equal(small[0].bias, model[0].bias[[1, 4]])
    assert torch.equal(small[3].weight, model[3].weight[:, [1, 4]])
    assert small[3].bias is not None
    assert small[1].running_mean.shape == small[1].weight.shape == small[2].weight.shape == (2,)
    assert (small[0].out_channels, small[3].in_channels) == (2, 2)
    assert (small[1].num_features, small[2].num_parameters) == (2, 2)
    assert record["0.weight"] == [[1, 4], [0, 1, 2], [0], [0]]
    assert set(record) == {
        *("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"),
        *("2.weight", "3.weight"),
    }
    assert [p.tolist() for p in positions(graph, "3.weight", keep(graph, "0", [2]))] == [
        [0, 1],
        [2],
        [0],
        [0],
    ]


def test_a_cut_of_nothing_changes_nothing():
    model, graph = analysed(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1))
    before = dict(model.named_parameters())
    assert cut(model, graph, np.ones(graph.total, bool)) == {}
    assert all(before[k] is p for k, p in model.named_parameters())


def test_every_group_keeps_its_own_columns():
    model, graph = analysed(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    small = copy.deepcopy(model)
    cut(small, graph, keep(graph, "0", [0, 2, 4, 5]))
    weight = model[1].weight
    expected = torch.cat([weight[:2][:, [0, 2]], weight[2:][:, [1, 2]]])
    assert torch.equal(small[1].weight, expected)
    assert (small[1].in_channels, small[1].groups) == (4, 2)


def test_every_group_of_a_transposed_convolution_keeps_its_own_columns():
    model, graph = analysed(
        nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 6, 1, groups=2), nn.Conv2d(6, 2, 1)
    )
    small = copy.deepcopy(model)
    kept = keep(graph, "0", [0, 2, 4, 5]) & keep(graph, "1", [1, 2, 3, 5])
    cut(small, graph, kept)
    weight = model[1].weight
    expected = torch.cat([weight[[0, 2]][:, [1, 2]], weight[[4, 5]][:, [0, 2]]])
    assert torch.equal(small[1].weight, expected)
    assert torch.equal(small[1].bias, model[1].bias[[1, 2, 3, 5]])
    assert (small[1].in_channels, small[1].out_channels, small[1].groups) == (4, 4, 2)


def test_the_same_columns_for_every_group_would_be_noticed(monkeypatch):
    def wrong(value, indices, units, groups, kept, how):
        stay = np.where(units < 0, True, kept[units]).reshape(groups, -1)
        return how(value, [indices[0], np.flatnonzero(stay[0]), *indices[2:]])

    model, example = NETWORKS["transposed_grouped"](0)
    law_one(model, example)
    monkeypatch.setattr("vibnet.graph.trial.cut._grouped", wrong)
    with pytest.raises(VerificationError):
        law_one(model, example)


def test_the_numbers_in_a_buffer_are_those_of_the_positions_left():
    units, kept = np.array([0, 1, 2, 3, -1]), np.array([True, False, True, True])
    assert renumber(np.array([3, 1, 4, 0, -2, 3]), units, kept).tolist() == [2, 3, 0, 2, 2]
    model, example = NETWORKS["permuted_buffer"](0)
    graph = analyse(model, example)
    small = copy.deepcopy(model)
    record = cut(small, graph, keep(graph, "conv1", [0, 2, 3, 7]))
    assert small.order.tolist() == [2, 0, 3, 1]  # of 3, 0, 7, 2
    assert record["order"] == [[0, 1, 2, 5]]
    assert torch.equal(small.conv2.weight, model.conv2.weight[:, [0, 1, 2, 5]])


def test_a_buffer_can_be_cut_twice():
    model, example = NETWORKS["permuted_buffer"](0)
    graph = analyse(model, example)
    once, twice = copy.deepcopy(model), copy.deepcopy(model)
    last = keep(graph, "conv1", [2, 3, 7])
    cut(once, graph, last)
    first = keep(graph, "conv1", [0, 2, 3, 7])
    cut(twice, graph, first)
    cut(twice, restrict(graph, first), last[first])
    assert torch.equal(once.order, twice.order)
    assert torch.equal(once.conv2.weight, twice.conv2.weight)


def test_numbers_that_are_left_as_they_were_would_be_noticed(monkeypatch):
    model, example = NETWORKS["permuted_buffer"](0)
    law_one(model, example)
    monkeypatch.setattr(
        "vibnet.graph.trial.cut.renumber",
        lambda values, units, kept: np.arange(int(kept[units[values]].sum())),
    )
    with pytest.raises(VerificationError):
        law_one(model, example)


def test_a_buffer_that_was_changed_is_not_cut():
    model, example = NETWORKS["permuted_buffer"](0)
    graph = analyse(model, example)
    model.order.copy_(torch.arange(8))
    with pytest.raises(PlanError, match="order are others than when the model was looked at"):
        cut(copy.deepcopy(model), graph, keep(graph, "conv1", [0, 2, 3, 7]))


@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_depthwise_convolution_loses_groups(multiplier):
    model, graph = analysed(
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(4, 4 * multiplier, 1, groups=4),
        nn.Conv2d(4 * multiplier, 2, 1),
    )
    cut(model, graph, keep(graph, "0", [1, 3, 2]))
    layer = model[1]
    assert (layer.groups, layer.in_channels, layer.out_channels) == (3, 3, 3 * multiplier)
    assert model(X).shape == (2, 2, 5, 5)


def test_a_norm_without_tensors_knows_its_width():
    norm = nn.BatchNorm2d(6, affine=False, track_running_stats=False)
    model, graph = analysed(nn.Conv2d(3, 6, 1), norm, nn.Conv2d(6, 2, 1))
    cut(model, graph, keep(graph, "0", [0, 5]))
    assert model[1].num_features == 2


@pytest.mark.parametrize("verify", [True, False])
def test_the_state_of_a_parametrisation_in_training_is_not_touched(verify):
    torch.manual_seed(0)
    first = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 12))
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))
    gated = attach(model.train(), torch.randn(4, 8))
    close_units(gated, 0.5, 0)
    before = copy.deepcopy(gated.train().state_dict())
    _, report = prune(gated, verify=verify)
    assert report.weights[1] < report.weights[0]
    assert all(torch.equal(x, before[name]) for name, x in gated.state_dict().items())
    assert all(part.training for part in gated.modules())


class Outer(nn.Module):
    """A square weight from one of its rows."""

    def forward(self, row):
        return row.t() @ row


def test_a_weight_that_is_made_of_another_tells_no_sizes():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].weight = nn.Parameter(torch.rand(1, 8))
    nn.utils.parametrize.register_parametrization(model[0], "weight", Outer(), unsafe=True)
    _, small, _ = law_one(model, torch.randn(4, 8))
    assert (small[0].out_features, small[0].in_features) == (8, 8)


def test_flags_of_parameters_are_kept():
    model, graph = analysed(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1))
    model[0].weight.requires_grad_(False)
    cut(model, graph, keep(graph, "0", [0]))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]

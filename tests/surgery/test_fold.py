import numpy as np
import pytest
import torch
from torch import nn

from vibnet import attach, plan, prune
from vibnet.errors import FoldError
from vibnet.graph.trial.probe import analyse
from vibnet.surgery.fold import bare, closed, fold, shut

X = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).double()


def three():
    torch.manual_seed(0)
    layers = (nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    return nn.Sequential(*layers).double()


def test_means_are_folded_into_the_columns_of_readers():
    gated = attach(three(), X)
    gated.gate("0").log_var.data[[1, 3]] = 5.0
    gated.gate("0").mu.data.uniform_(-2, 2)
    gated.gate("0").log_var.data[[0, 2, 4, 5]] = -30.0
    small, _ = prune(gated)
    kept = [0, 2, 4, 5]
    rows = plan(gated).kept["2"]
    expected = gated.model[2].weight[rows][:, kept] * gated.gate("0").mu[kept]
    torch.testing.assert_close(small[2].weight, expected)


def test_folding_multiplies_what_readers_see():
    model = three()
    graph = analyse(model, X)
    multipliers = torch.linspace(-1, 2, graph.total).double()
    whole = bare(model)
    fold(whole, graph, multipliers)
    seen = model[1](model[0](X)) * multipliers[:6]
    seen = model[3](model[2](seen)) * multipliers[6:]
    torch.testing.assert_close(whole(X), model[4](seen))
    torch.testing.assert_close(whole[0].weight, model[0].weight, rtol=0, atol=0)


def test_a_grouped_reader_takes_each_groups_own_multipliers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 2, 1))
    model, x = model.double(), torch.randn(2, 2, 3, 3).double()
    graph = analyse(model, x)
    site = next(s for s in graph.sites if s.name == "0")
    multipliers = torch.ones(graph.total).double()
    multipliers[torch.as_tensor(site.units)] = torch.tensor([1.0, -2.0, 3.0, 0.5]).double()
    whole = bare(model)
    fold(whole, graph, multipliers)
    scaled = model[0](x) * torch.tensor([1.0, -2.0, 3.0, 0.5]).double()[:, None, None]
    torch.testing.assert_close(whole(x), model[2](model[1](scaled)))


def test_closing_zeroes_columns_and_nothing_else():
    model = three()
    graph = analyse(model, X)
    kept = np.ones(graph.total, dtype=bool)
    kept[[1, 2]] = False
    shut = closed(model, graph, kept)
    assert not shut[2].weight[:, [1, 2]].any()
    assert torch.equal(shut[2].weight[:, [0, 3, 4, 5]], model[2].weight[:, [0, 3, 4, 5]])
    assert torch.equal(shut[0].weight, model[0].weight)


def test_a_weight_with_another_use_and_no_way_round_is_refused():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(6, 2)

        def forward(self, x):
            h = torch.tanh(self.a(x))
            return self.c(nn.functional.linear(self.b(h), self.b.weight.t()) + h)

    model = Tied().double()
    graph = analyse(model, X)
    with pytest.raises(FoldError, match=r"b.weight is used in another way too, so no multiplier"):
        fold(bare(model), graph, torch.full((graph.total,), 0.5).double())


def test_a_tensor_is_shut_by_its_name_as_the_whole_model_is():
    model = three()
    graph = analyse(model, X)
    kept = np.arange(graph.total) % 3 > 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, wanted in closed(model, graph, kept).named_parameters():
        value = dict(model.named_parameters())[name].detach()
        assert torch.equal(shut(value, name, graph, kept), wanted)
        assert torch.equal(value, before[name])

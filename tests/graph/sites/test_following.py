import numpy as np
import pytest
import torch
from torch import nn

from vibnet.errors import PlanError
from vibnet.graph.sites.following import Norm, by_weight, check, eps_of


def mean_of_squares(x):
    return x.pow(2).mean(-1, keepdim=True)


def norm(offset=0.0, width=6):
    units = np.array([0, 1, 2, -1, 3, 4])[:width]
    return Norm("n.weight", units, offset, 1e-3, "n", "eps", width)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_smaller_norm_gives_the_same_numbers(offset):
    torch.manual_seed(0)
    kept = np.array([True, False, True, False, True])
    stay = [0, 2, 3, 5]
    x = torch.randn(4, 6, dtype=torch.float64)
    x[:, [1, 4]] = 0
    w = torch.randn(6, dtype=torch.float64)
    one = norm(offset)

    def normed(x, w, eps):
        return x * torch.rsqrt(mean_of_squares(x) + eps) * (w + offset)

    small = normed(x[:, stay], one.scaled(w[stay], kept), one.eps_of(kept))
    assert (normed(x, w, 1e-3)[:, stay] - small).abs().max() < 1e-15
    assert one.share(kept) == 1.5


def test_a_norm_that_stays_whole_is_left_alone():
    w, kept = torch.randn(6), np.ones(5, dtype=bool)
    assert norm().scaled(w, kept) is w
    assert eps_of([norm()], kept) == {}


def test_eps_belongs_to_the_first_width_so_that_two_cuts_are_one():
    kept = np.array([True, False, True, True, True])
    second = Norm("n.weight", np.array([0, 1, -1, 2, 3]), 0.0, 1e-3, "n", "eps", 6)
    again = np.array([True, False, True, True])
    both = np.array([True, False, False, True, True])
    assert eps_of([norm()], kept) == {"n.eps": 1e-3 * 6 / 5}
    assert second.eps_of(again) == norm().eps_of(both)


def test_norms_are_found_by_weight():
    assert by_weight([norm()])["n.weight"].first == 6


def test_an_eps_that_was_changed_since_is_refused():
    model = nn.Sequential(nn.RMSNorm(6, eps=1e-3))
    one = Norm("0.weight", np.arange(6), 0.0, 1e-3, "0", "eps", 6)
    check(model, [one])
    model[0].eps = 0.5
    with pytest.raises(PlanError, match=r"0\.eps is 0\.5, but was 0\.001 when the model"):
        check(model, [one])
    half = Norm("0.weight", np.arange(3), 0.0, 1e-3, "0", "eps", 6)
    model[0].eps = 2e-3
    check(model, [half])
    model[0].eps = None
    with pytest.raises(PlanError, match="so the norm cannot follow its width"):
        check(model, [half])


def test_what_a_second_cut_leaves_alone_is_told_all_the_same():
    after = Norm("n.weight", np.arange(3), 0.0, 1e-3, "n", "eps", 6)
    assert eps_of([after], np.ones(3, dtype=bool)) == {"n.eps": 2e-3}

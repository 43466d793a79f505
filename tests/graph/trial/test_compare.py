"""Trial cuts beside the whole model: modes that run the same lines, numbers that differ."""

import re

import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet.graph.capture.capture import capture
from vibnet.graph.trial.compare import alike, different
from vibnet.graph.trial.probe import analyse

IMAGES = torch.randn(2, 3, 8, 8)


def test_one_trial_is_enough_where_both_modes_run_the_same_lines():
    model, example = NETWORKS["cnn"](0)
    assert alike(*capture(model, example))


def test_a_line_that_one_mode_alone_runs_gets_its_own_trial():
    class Modes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.a(x)
            return self.b(h) if self.training else self.b(h.view(-1, 6))

    model, example = Modes(), torch.randn(4, 4)
    assert not alike(*capture(model, example))
    graph = analyse(model, example)
    assert not graph.sites
    assert "after a trial cut view" in next(s.reason for s in graph.pinned if s.name == "a")


def test_adding_in_place_in_one_mode_is_another_way():
    class Modes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            h = self.a(x)
            if not self.training:
                h.add_(torch.ones(6))
            return self.b(h)

    assert not alike(*capture(Modes(), torch.randn(4, 4)))


NUMBERS = {
    "a root": lambda m, h: h / h.shape[1] ** 0.5,
    "a layer's size": lambda m, h: h / m.b.in_channels,
    "a length": lambda m, h: h * len(m.a.weight),
    "a count": lambda m, h: h / h.numel(),
    "a filled tensor": lambda m, h: h * torch.full((1,), h.shape[1]),
    "a constant": lambda m, h: h * torch.tensor(float(h.shape[1])),
    "a constant list": lambda m, h: h * torch.tensor([h.shape[1]], dtype=h.dtype),
    "full_like": lambda m, h: h + torch.full_like(h, h.shape[1]),
    "alpha": lambda m, h: h.add(h, alpha=h.shape[1]),
    "a limit": lambda m, h: h.clamp(max=h.shape[1] / 10),
    "a turn of space": lambda m, h: h.roll(h.shape[1], 3),
    "a place": lambda m, h: h[:, :, :, h.shape[1] // 4][..., None],
    "a place in a table": lambda m, h: h * m.table[h.shape[1]],
    "a range": lambda m, h: h[:, :, h.shape[1] // 4 : h.shape[1] // 4 + 1],
    "a divisor": lambda m, h: nn.functional.avg_pool2d(h, 2, divisor_override=h.shape[1]),
    "a correction": lambda m, h: h.std(2, correction=h.shape[1], keepdim=True),
    "a complex number": lambda m, h: (h * complex(0, h.shape[1])).abs(),
    "padding": lambda m, h: nn.functional.pad(h, (1, 1), value=h.shape[1]),
}


def test_a_factor_that_depends_on_the_width_pins_it():
    class Factor(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = self.a(x)
            return torch.addmm(self.b.bias, h, self.b.weight.t(), alpha=h.shape[1])

    graph = analyse(Factor(), torch.randn(2, 4))
    assert graph.sites == []
    assert any("addmm in the model itself" in s.reason for s in graph.pinned if s.name == "a")


class Numbers(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.change, self.table = change, nn.Buffer(torch.rand(9))

    def forward(self, x):
        return self.b(self.change(self, self.a(x)))


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_depends_on_the_width_pins_it(name):
    graph = analyse(Numbers(NUMBERS[name]), IMAGES)
    assert graph.sites == []
    reason = next(s.reason for s in graph.pinned if s.name == "a")
    assert re.search(
        r"computes with a number that depends on the width \(.*test_compare", reason
    ) or ("test_compare.py" in reason and "after a trial cut" in reason), reason


@pytest.mark.parametrize(
    "change",
    [lambda m, h: h / h.shape[2] ** 0.5, lambda m, h: h * float("nan"), lambda m, h: h * 8],
)
def test_numbers_that_do_not_depend_on_the_width_are_left(change):
    assert [s.name for s in analyse(Numbers(change), IMAGES).sites] == ["a"]


@pytest.mark.parametrize(
    "change", [lambda m, h: h + torch.randn_like(h), lambda m, h: nn.functional.dropout(h, 0.5)]
)
def test_random_numbers_in_evaluation_pin_by_name(change):
    graph = analyse(Numbers(change), IMAGES)
    assert graph.sites == []
    assert "draws random numbers for it in evaluation" in graph.pinned[0].reason


def test_more_numbers_than_before_are_other_numbers():
    assert different([1, 2], [1]) == ([1, 2], [1])
    assert different([], [3]) == ([], [3])

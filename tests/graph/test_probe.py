import copy
import re

import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet.graph.probe import analyse


class Flat(nn.Module):
    """A convolution whose output is flattened in one of two spellings."""

    def __init__(self, literal):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(48, 5)
        self.literal = literal

    def forward(self, x):
        x = self.pool(torch.relu(self.conv(x)))
        if self.literal:
            x = x.view(-1, 48)
        else:
            x = x.flatten(1)
        return self.head(x)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_size_written_into_the_code_pins():
    graph = analyse(Flat(literal=True), IMAGES)
    assert [s.name for s in graph.sites] == []
    pinned = {s.name: s for s in graph.pinned}["conv"]
    assert "after a trial cut" in pinned.reason
    assert "48" in pinned.reason
    assert len(pinned.units) == 0


def test_the_same_model_without_the_size_can_be_cut():
    graph = analyse(Flat(literal=False), IMAGES)
    assert [(s.name, s.size, s.readers) for s in graph.sites] == [("conv", 12, ("head",))]
    assert graph.total == 12


def test_one_bad_site_pins_no_other():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.flat = nn.Conv2d(3, 3, 1), Flat(literal=True)

        def forward(self, x):
            return self.flat(self.good(x).relu())

    graph = analyse(Two(), IMAGES)
    assert [s.name for s in graph.sites] == ["good"]
    assert graph.total == 3
    assert sorted(graph.sites[0].units.tolist()) == [0, 1, 2]
    assert {s.name for s in graph.pinned} == {"flat.conv", "flat.head"}
    assert all(max(u.max(initial=-1) for u in units) < 3 for units in graph.parameters.values())


def test_a_path_that_depends_on_the_width_pins():
    class Path(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.a(x)
            return self.b(x.relu() if x.shape[1] == 6 else x.tanh())

    graph = analyse(Path(), torch.randn(2, 4))
    reasons = {s.name: s.reason for s in graph.pinned}
    assert "after a trial cut the model takes another path" in reasons["a"]


def test_a_forward_that_fails_when_cut_pins_with_its_message():
    class Checks(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.a(x)
            if x.shape[1] != 6:
                raise ValueError("six features are needed")
            return self.b(x)

    reasons = {s.name: s.reason for s in analyse(Checks(), torch.randn(2, 4)).pinned}
    assert re.fullmatch(
        r"after a trial cut the model fails at test_probe\.py:\d+: six features are needed",
        reasons["a"],
    )


@pytest.mark.parametrize("name", ["cnn", "dropout", "frozen_norm", "tied_parameter"])
@pytest.mark.parametrize("training", [True, False])
def test_analysing_leaves_no_trace(name, training):
    model, example = NETWORKS[name](0)
    model.train(training)
    model.register_forward_hook(lambda *_: None)
    modules = list(model.modules())
    modes = [m.training for m in modules]
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules]
    tensors = dict(model.named_parameters(remove_duplicate=False))
    before = copy.deepcopy(model.state_dict())
    inputs = [x.clone() for x in example]
    state = torch.get_rng_state()
    analyse(model, example)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.modules()) == modules
    assert [m.training for m in modules] == modes
    assert [(list(m._forward_hooks), list(m._forward_pre_hooks)) for m in modules] == hooks
    after = dict(model.named_parameters(remove_duplicate=False))
    assert all(after[k] is v and v.grad is None for k, v in tensors.items())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(torch.equal(x, y) for x, y in zip(inputs, example, strict=True))
    assert torch.is_grad_enabled()


def test_analysing_twice_says_the_same():
    model, example = NETWORKS["unet"](0)
    a, b = analyse(model, example), analyse(model, example)
    assert a.source == b.source
    assert [(s.name, s.units.tolist(), s.reason) for s in (*a.sites, *a.pinned)] == [
        (s.name, s.units.tolist(), s.reason) for s in (*b.sites, *b.pinned)
    ]

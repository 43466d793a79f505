import copy
import re
from dataclasses import replace

import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet import attach, plan, prune
from vibnet.graph.trial.culprits import Complaint
from vibnet.graph.trial.probe import Probe, analyse


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


class Step(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Stepped(nn.Module):
    """A convolution, a function in a module of its own, and a linear layer."""

    def __init__(self, function):
        super().__init__()
        self.a, self.step, self.b = nn.Conv2d(3, 8, 3), Step(function), nn.Linear(288, 4)

    def forward(self, x):
        return self.b(self.step(self.a(x)))


def checked(x):
    if x.shape[1] != 8:
        raise ValueError("eight are needed")
    return x.flatten(1)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_size_written_into_the_code_pins():
    graph = analyse(Flat(literal=True), IMAGES)
    assert [s.name for s in graph.sites] == []
    pinned = {s.name: s for s in graph.pinned}["conv"]
    assert "after a trial cut" in pinned.reason
    assert "48" in pinned.reason
    assert len(pinned.units) == 0


LITERALS = {
    "view": (lambda x: x.view(-1, 288), r"view in step \(L\).*gives \(\d+, 288\) instead.*flatten"),
    "reshape": (
        lambda x: x.reshape(4, 288),
        r"view in step \(L\) fails: .*288.*; write x.flatten\(1",
    ),
    "split": (
        lambda x: torch.cat([y.relu() for y in x.split(4, 1)], 1).flatten(1),
        r"split in step \(L\).*; write x\.chunk",
    ),
    "slice": (
        lambda x: (x[:, :4] + x[:, 4:]).repeat(1, 2, 1, 1).flatten(1),
        r"slice in step \(L\).*; write x\.chunk",
    ),
    "zeros": (
        lambda x: (torch.zeros(4, 8, 6, 6) + x).flatten(1),
        r"(zeros|add) in step \(L\).*; take sizes from tensors \(x\.shape\)",
    ),
    "raised": (
        checked,
        r"after a trial cut step \(L\) fails: eight are needed; take sizes from tensors",
    ),
}


@pytest.mark.parametrize("name", LITERALS)
def test_a_number_in_the_code_is_named_with_op_module_line_and_remedy(name):
    step, why = LITERALS[name]
    graph = analyse(Stepped(step), torch.cat([IMAGES, IMAGES]))
    assert graph.sites == []
    reason = {s.name: s.reason for s in graph.pinned}["a"]
    assert re.search(why.replace("L", r"test_probe\.py:\d+", 1), reason), reason


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
        r"after a trial cut the model itself \(test_probe\.py:\d+\) fails: six features are "
        r"needed; take sizes from tensors \(x\.shape\).*",
        reasons["a"],
    )


class Net(nn.Module):
    def __init__(self, function, width=8, read=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(read, 4, 1)
        self.function = function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def test_a_site_that_constraints_keep_whole_is_pinned_with_the_constraint():
    graph = analyse(Net(lambda x: x[:, :1] * x), IMAGES)
    assert graph.sites == []
    reasons = [s.reason for s in graph.pinned if s.name.startswith("a")]
    assert any(
        re.fullmatch(
            r"no legal cut: the parts of slice in the model itself \(test_probe\.py:\d+\) must "
            r"keep as many units each, at least one",
            r,
        )
        for r in reasons
    ), reasons


def test_a_site_of_one_unit_is_pinned():
    graph = analyse(Net(lambda x: x, 1, 1), IMAGES)
    reasons = {s.name: s.reason for s in graph.pinned}
    assert reasons["a"] == "no legal cut: it has one unit, and one must stay"


def test_sites_that_can_only_be_cut_together_are_not_stuck():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.left, self.right = nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            x, y = torch.cat([self.a(x), self.b(x)], 1).chunk(2, 1)
            return self.left(x) + self.right(y)

    graph = analyse(Joined(), torch.randn(3, 4))
    assert [(s.name, s.size) for s in graph.sites] == [("a", 4), ("b", 4)]


def test_a_site_bound_to_one_that_fails_is_pinned_too():
    class Bound(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6)
            self.left, self.right, self.last = (nn.Linear(6, 2) for _ in range(3))

        def forward(self, x):
            y, z = torch.cat([self.a(x), self.b(x)], 1).chunk(2, 1)
            return self.left(y) + self.right(z.reshape(-1, 6)[:4]) + self.last(self.c(x))

    graph = analyse(Bound(), torch.randn(4, 4))
    assert [s.name for s in graph.sites] == ["c"]
    reasons = {s.name: s.reason for s in graph.pinned}
    assert re.search(r"reshape in the model itself \(test_probe\.py:\d+\) fails", reasons["b"])
    assert "instead of the number" in reasons["b"]
    assert "no legal cut: the parts of split" in reasons["a"]


def test_what_bisection_leaves_must_pass_together(monkeypatch):
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(6)])

    def complaint(_self, sites):
        names = {s.name for s in sites}
        return None if "3" not in names and not {"0", "4"} <= names else Complaint("no")

    monkeypatch.setattr(Probe, "complaint", complaint)
    graph = analyse(model, torch.randn(3, 4))
    assert [s.name for s in graph.sites] == ["0", "1", "2"]
    assert {s.name for s in graph.pinned if s.reason == "no"} == {"3", "4"}


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


class Picks(nn.Module):
    """Real numbers decide how many rows are given: a detector in small."""

    def __init__(self, after=lambda h: h):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.after = after

    def forward(self, x):
        h = self.b(torch.relu(self.a(x)))
        best = h[h.sum(1) > h.sum(1).median()]
        for _ in range(int((h > 0).sum())):
            best = best * 1.01
        return self.after(best)


def test_what_a_model_does_with_its_answers_may_depend_on_them():
    torch.manual_seed(0)
    model, x = Picks().double(), torch.randn(9, 4).double()
    found = plan(model, x)
    assert found.sizes == {"a": 6}
    assert set(found.pinned) == {"b"}
    small, report = prune(model, replace(found, kept={"a": [0, 2, 5]}), x)
    assert report.difference < 1e-13
    assert small.a.out_features == 3


def test_before_units_end_the_number_of_rows_is_held_to_the_prediction():
    class Earlier(Picks):
        def forward(self, x):
            h = torch.relu(self.a(x))
            return self.b(h[h.sum(1) > 2.0])

    torch.manual_seed(0)
    found = plan(Earlier().double(), torch.randn(9, 4).double())
    assert "a" in found.pinned


def test_a_path_that_only_sizes_decide_is_held_to_the_end():
    class Decides(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)

        def forward(self, x):
            h = torch.relu(self.a(x))
            y = self.b(h)
            return y * 2 if h.shape[1] > 5 else y

    found = plan(Decides(), torch.randn(9, 4))
    assert "takes another path" in found.pinned["a"]


class Overlapping(nn.Module):
    """Parts of a stated split that hold the same units more than once, and one alone."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes, total = sizes, sum(sizes)
        self.up = nn.Linear(3, total // 2)
        self.parts = nn.ModuleList(nn.Linear(n, 2) for n in sizes)

    def forward(self, x):
        h = self.up(x)
        parts = torch.cat([h, h], 1).split(self.sizes, 1)
        return sum(layer(part) for layer, part in zip(self.parts, parts, strict=True))


@pytest.mark.parametrize("sizes", [[2, 14], [3, 1], [1, 7], [5, 3]])
def test_every_number_of_a_list_follows_whatever_units_a_trial_takes(sizes):
    torch.manual_seed(0)
    model, x = Overlapping(sizes).double(), torch.randn(4, 3, dtype=torch.float64)
    gated = attach(model, x)
    for unit in range(len(gated.gate("up").mu)):
        for gate in gated.gates.values():
            gate.log_var.data.fill_(-9.0)
            gate.log_var.data[unit] = 5.0
        gated.eval()
        small, _ = prune(gated)
        torch.testing.assert_close(small(x), gated(x))


class Heads(nn.Module):
    """Attention written out, whose heads lie beside the batch for its products."""

    def __init__(self, heads):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(6, 24), nn.Linear(8, 2), heads

    def forward(self, x):
        parts = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = (part.flatten(0, 1) for part in parts)
        h = (q @ k.transpose(1, 2)).softmax(-1) @ v
        return self.out(h.view(len(x), self.heads, x.shape[1], -1).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("heads", [2, 4])
def test_few_heads_are_cut_down_to_one(heads):
    torch.manual_seed(0)
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    gated = attach(Heads(heads).double(), x)
    assert gated.gate("qkv").mu.shape == (heads,)
    gated.gate("qkv").log_var.data[1:] = 5.0
    small, _ = prune(gated.eval())
    assert (small.heads, small.qkv.out_features) == (1, 24 // heads)
    torch.testing.assert_close(small(x), gated(x))


class Stated(nn.Module):
    """A list of two numbers that are alike: the size of a part, and something else."""

    def __init__(self, way):
        super().__init__()
        self.sizes, self.way = (8, 8) if way == "tuple" else [8, 8], way
        self.up, self.down = nn.Linear(6, 16), nn.Linear(8, 4)
        if way == "pool":
            self.more = nn.Linear(8, 4)

    def forward(self, x):
        if self.way == "pool":
            other = self.more(nn.functional.adaptive_avg_pool1d(x, self.sizes[1]))
        else:
            x, other = x[:, : self.sizes[1]], 0
        parts = self.up(x).relu().unflatten(-1, (2, self.sizes[0]))
        return self.down(parts.sum(2)).mean(1) + (other.mean(1) if self.way == "pool" else 0)


@pytest.mark.parametrize("way", ["list", "tuple", "pool"])
def test_a_number_beside_one_that_follows_stays(way):
    torch.manual_seed(0)
    model, x = Stated(way).double(), torch.randn(4, 2, 6, dtype=torch.float64)
    gated = attach(model, x)
    (site,) = (s for s in gated.sites if s.name == "up")
    gated.gate("up").log_var.data[:5] = 5.0
    small, report = prune(gated.eval())
    assert report.numbers == {"sizes[0]": 3}
    assert list(small.sizes) == [3, 8]
    longer = torch.randn(4, 9, 6, dtype=torch.float64)
    torch.testing.assert_close(small(longer), gated(longer))
    assert site.size == 8


def test_a_model_that_gives_nothing_on_the_example_has_a_plan():
    class Nothing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x):
            return [row for row in self.b(self.a(x).relu()) if x[0, 0] > 1e9]

    assert plan(Nothing(), torch.randn(3, 6)).sizes == {"a": 8}

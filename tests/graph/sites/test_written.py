"""Units under a root-mean-square norm: closed where they are written, or refused by name."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
import torch
from streams import WIDTH, WORDS, Norm, X, trained
from torch import nn
from torch.nn import functional as F

import vibnet
from vibnet.errors import NoSitesError, PlanError
from vibnet.graph.trial.probe import analyse
from vibnet.train.shrink import shrink


class Stream(nn.Module):
    """Words, a stream of units with a branch under a norm, a head under another one."""

    def __init__(self, norm=Norm, bias=True):
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.norm, self.last = norm(), norm()
        self.up, self.down = nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH, bias=bias)
        self.head = nn.Linear(WIDTH, 4)

    def between(self, h):
        """What stands between writing and the norms."""
        return h

    def forward(self, x):
        h = self.between(self.words(x))
        h = h + self.down(F.relu(self.up(self.norm(h))))
        return self.head(self.last(h))


def between(how, **layers):
    """A stream with something between writing and reading."""

    class Changed(Stream):
        def between(self, h):
            return how(self, h)

    torch.manual_seed(0)
    model = Changed()
    for name, layer in layers.items():
        setattr(model, name, layer)
    return model.double()


def stream(**options):
    torch.manual_seed(0)
    return Stream(**options).double()


def site_of(found, name="words"):
    return next(s for s in found.sites if s.name == name)


EXACT = {
    "spelled": stream,
    "torch's": lambda: stream(norm=lambda: nn.RMSNorm(WIDTH, eps=1e-2)),
    "no bias": lambda: stream(bias=False),
    "scaled": lambda: between(lambda m, h: h * 3 / 2),
    "weighed": lambda: between(lambda m, h: h * m.w, w=nn.Parameter(torch.rand(WIDTH))),
    "activations": lambda: between(lambda m, h: F.silu(torch.tanh(h)) + F.gelu(h) - h.abs()),
    "dropout": lambda: between(lambda m, h: F.dropout(h, 0.5, m.training)),
    "in place": lambda: between(lambda m, h: h.clone().mul_(2).add_(h)),
    "turned": lambda: between(lambda m, h: h.transpose(1, 2).contiguous().transpose(1, 2)),
    "cut in parts": lambda: between(lambda m, h: torch.cat([h[:, :2], h[:, 2:]], 1)),
    "filled with zero": lambda: between(lambda m, h: h.masked_fill(h > 1, 0.0)),
    "clamped": lambda: between(lambda m, h: F.hardtanh(h).clamp(-0.9, 2)),
    "summed up": lambda: between(lambda m, h: h.cumsum(1)),
    "the larger": lambda: between(lambda m, h: torch.maximum(h, 2 * h)),
    "gated": lambda: between(lambda m, h: h * torch.sigmoid(h)),
    "squared": lambda: between(lambda m, h: h.pow(2) / 3),
    "by itself": lambda: between(lambda m, h: h + m.own(h), own=nn.Linear(WIDTH, WIDTH)),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_small_model_answers_as_the_gated_one(name):
    model = EXACT[name]()
    gated = trained(model)
    site = site_of(gated)
    assert not site.ungated
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-13
    assert small.words.weight.shape == (WORDS, 5)
    assert small.head.weight.shape == (4, 5)
    assert report.eps == dict.fromkeys(("norm.eps", "last.eps"), 0.01 * 8 / 5)
    assert small.norm.eps == small.last.eps == 1e-2 * 8 / 5
    other = torch.randint(0, WORDS, (2, 7), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert (gated(other) - small(other)).abs().max() < 1e-13
        closed_otherwise = trained(model)
        closed_otherwise.gate("words").mu.neg_()
        assert (gated(other) - closed_otherwise(other)).abs().max() > 1e-3


def test_gates_stand_where_units_are_written_once_for_every_writer():
    gated = trained(stream())
    places = {(p.at, p.argument) for p in gated.places}
    assert places == {("words", -1), ("down", -1), ("down", 0)}
    draws = []
    gated.model.norm.register_forward_pre_hook(lambda _m, args: draws.append(args[0]))
    gated.train()
    gated(X)
    with torch.no_grad():
        words = gated.model.words.weight[X]
    z = draws[0].detach() / words
    assert torch.allclose(z, z[:, :1].expand_as(z))  # one draw an example, the same for all tokens
    assert not torch.allclose(z[0], z[1])


def test_a_plan_cuts_a_plain_model():
    model = stream()
    found = vibnet.plan(model, X)
    assert found.cuttable == {"weights": 1.0, "macs": 1.0}
    wanted = replace(found, kept={"words": [1, 2, 5], "up": list(range(0, 12, 2))})
    small, report = vibnet.prune(model, wanted, X)
    assert report.difference < 1e-13
    assert small.last.eps == 1e-2 * 8 / 3
    assert torch.equal(small.last.weight, (model.last.weight * (8 / 3) ** 0.5)[[1, 2, 5]])


def test_torchs_norm_states_its_new_width():
    gated = trained(EXACT["torch's"]())
    small, _ = vibnet.prune(gated)
    assert small.norm.normalized_shape == (5,)
    assert "(5,)" in str(small.norm)


REFUSED = {
    "a number is added": (between(lambda m, h: h + 1), r"add in the model itself .* of zero"),
    "sigmoid": (between(lambda m, h: torch.sigmoid(h)), r"sigmoid in the model itself"),
    "cosine": (between(lambda m, h: h.cos()), r"cos in the model itself"),
    "a norm with a mean": (
        between(lambda m, h: m.other(h.transpose(1, 2)).transpose(1, 2), other=nn.BatchNorm1d(8)),
        r"batch_norm.* makes something else of zero",
    ),
    "a view is written into": (
        between(lambda m, h: (h := h * 1, h[:, :1].add_(1))[0]),
        r"makes something else of zero",
    ),
    "a part is filled": (
        between(lambda m, h: (h := h * 1, h[:, 1:2].fill_(1))[0]),
        r"fill_ in the model itself .* makes something else of zero",
    ),
    "a part is copied over": (
        between(lambda m, h: (h := h * 1, h[:, 1:2].copy_(h[:, :1].exp()))[0]),
        r"makes something else of zero",
    ),
    "one unit is written into": (
        between(lambda m, h: (h := h * 1, h[..., 0].add_(1))[0]),
        r"select in the model itself|makes something else of zero",
    ),
    "a mask": (
        between(lambda m, h: h.masked_fill(h > 0, 1.0)),
        r"masked_fill in the model itself .* of zero",
    ),
    "divided by itself": (between(lambda m, h: h / (h * h)), r"div in the model itself"),
    "it is one where it is read": (
        between(lambda m, h: h, last=nn.Sequential(Norm(), nn.Sigmoid())),
        r"must be zero at .* in head .*sigmoid in last\.1",
    ),
    "it is one where it is normed": (
        between(lambda m, h: h * m.own(h + 1), own=Norm()),
        r"must be zero at mean in own .*add in the model itself",
    ),
    "held above zero": (
        between(lambda m, h: F.hardtanh(h, 0.5, 1.0)),
        r"hardtanh in the model itself .* of zero",
    ),
    "a clamp above zero": (
        between(lambda m, h: h.clamp(min=0.1)),
        r"clamp(_min)? in the model",
    ),
    "written by another output": (
        between(lambda m, h: (h := h * 1, torch.exp(h.detach(), out=h.detach()))[0]),
        r"exp in the model itself .* of zero",
    ),
    "a bias that is computed": (
        between(
            lambda m, h: h + F.linear(h, m.w, m.down.bias * 2),
            w=nn.Parameter(torch.randn(WIDTH, WIDTH)),
        ),
        r"makes something else of zero",
    ),
    "a weight of a norm elsewhere": (
        between(lambda m, h: h * m.norm.weight),
        r"norm\.weight weighs a root-mean-square norm over it, and has another use too",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_something_else_of_zero_is_refused_by_name(name):
    model, why = REFUSED[name]
    found = vibnet.plan(model, X)
    assert "words" not in found.sizes
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(found.pinned["words"])
    assert "up" in found.sizes  # the rest is cut all the same


UNGATED = {
    "positions": (
        between(lambda m, h: h + m.at, at=nn.Parameter(torch.randn(5, WIDTH))),
        "at is added to it and is no module's output",
    ),
    "a token in front": (
        between(lambda m, h: torch.cat([m.at.expand(len(h), 1, -1), h], 1),
                at=nn.Parameter(torch.randn(1, 1, WIDTH))),
        "at is added to it and is no module's output",
    ),
    "written in the model": (
        between(lambda m, h: h + F.linear(h, m.w), w=nn.Parameter(torch.randn(WIDTH, WIDTH))),
        "is no module's own output",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNGATED)
def test_what_no_gate_can_stand_at_is_cut_by_a_plan_only(name):
    model, why = UNGATED[name]
    site = site_of(analyse(model, X))
    assert why in site.ungated
    with pytest.raises(NoSitesError, match="words"):
        vibnet.attach(model, X, include=["words"])
    found = vibnet.plan(model, X)
    small, report = vibnet.prune(model, replace(found, kept={"words": [0, 3, 4]}), X)
    assert report.difference < 1e-13
    assert small.head.in_features == 3


class Writes(nn.Module):
    """A module that writes units under a norm with a weight of its own, and how it gives them."""

    def __init__(self, give):
        super().__init__()
        self.weight, self.other = nn.Parameter(torch.randn(6, 4)), nn.Linear(6, 3)
        self.give, self.aside = give, None

    def forward(self, x):
        return self.give(self, F.linear(x, self.weight))


class UnderANorm(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.make, self.norm, self.read = Writes(give), Norm(6), nn.Linear(6, 3)

    def forward(self, x):
        y = self.read(self.norm(self.make(x)))
        return y if self.make.aside is None else y + self.make.aside


def as_it_is(module, h):
    return h


def seen_aside(module, h):
    module.aside = module.other(h)
    return h


def a_view_seen_aside(module, h):
    module.aside = module.other(h)
    return a_view(module, h)


def seen_aside_as_a_view(module, h):
    module.aside = module.other(a_view(module, h))
    return h


def kept(module, h):
    module.h = h
    return h


def changed(module, h):
    return torch.tanh(h)


def a_view(module, h):
    return h.unsqueeze(1).squeeze(1)


NEGATIVE = torch.tensor([1e-6, 2.0, -1.0, 1e-6, -0.5, 3.0])


@pytest.mark.parametrize("give", [as_it_is, a_view])
def test_behind_a_module_that_writes_stands_a_gate(give):
    torch.manual_seed(0)
    x = torch.randn(5, 4).double()
    model = UnderANorm(give)
    del model.make.other
    gated = trained(model.double(), x)
    assert [(p.at, p.argument) for p in gated.places] == [("make", -1)]
    with torch.no_grad():
        gated.gate("make").mu.copy_(NEGATIVE)
    assert vibnet.prune(gated)[1].difference < 1e-12


ASIDE = [seen_aside, a_view_seen_aside, seen_aside_as_a_view, kept, changed]


@pytest.mark.parametrize("give", ASIDE, ids=lambda give: give.__name__)
def test_what_a_module_uses_itself_or_changes_is_gated_nowhere(give):
    torch.manual_seed(0)
    model, x = UnderANorm(give).double(), torch.randn(5, 4).double()
    if give in (kept, changed):
        del model.make.other
    site = site_of(analyse(model, x), "make")
    assert "is no module's own output" in site.ungated
    assert "or the module keeps it or uses it for something else too" in site.ungated
    found = vibnet.plan(model, x)
    _, report = vibnet.prune(model, replace(found, kept={"make": [0, 3, 4]}), x)
    assert report.difference < 1e-12


def test_what_a_hook_of_the_model_writes_is_gated_nowhere():
    class Hooked(nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.norm = nn.Parameter(torch.randn(6, 4)), Norm(6)
            self.read = nn.Linear(6, 3)
            self.register_forward_pre_hook(lambda model, args: F.linear(args[0], model.w))

        def forward(self, h):
            return self.read(self.norm(h))

    site = site_of(analyse(Hooked(), torch.randn(5, 4)), "w")
    assert "is no module's own output" in site.ungated


class Table(nn.Embedding):
    """A table of words that does something else with numbers."""

    def forward(self, x):
        return x.exp() if x.is_floating_point() else super().forward(x)


class CallsTwice(nn.Module):
    """Writes units under a norm in one call, and something else, or elsewhere, in another."""

    def __init__(self, second):
        super().__init__()
        self.make, self.norm, self.read = Table(WORDS, WIDTH), Norm(), nn.Linear(WIDTH, 4)
        self.second = second

    def forward(self, x):
        return self.read(self.norm(self.second(self.make, x)))


SECOND = {
    "the same again": (lambda make, x: make(x) + make(x.flip(1)), ""),
    "of another rank": (
        lambda make, x: make(x) + make(x[:, 0])[:, None],
        "make gives other units in other calls",
    ),
    "no units": (
        lambda make, x: make(x) * make(torch.zeros(len(x), 1, 1)),
        "make gives other units in other calls",
    ),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_module_that_gives_other_units_in_another_call_is_gated_nowhere(name):
    second, why = SECOND[name]
    assert site_of(analyse(CallsTwice(second), X), "make").ungated == why


def test_a_module_that_writes_twice_is_gated_once_for_both():
    class Twice(Stream):
        def between(self, h):
            return h + self.down(F.relu(self.up(self.norm(h))))

    torch.manual_seed(0)
    gated = trained(Twice().double())
    assert not site_of(gated).ungated
    _, report = vibnet.prune(gated)
    assert report.difference < 1e-13


def test_single_features_of_what_a_norm_gives_are_refused():
    with pytest.raises(NoSitesError, match="which reads units that a root-mean-square norm goes"):
        vibnet.attach(stream(), X, features=["head"])
    with pytest.raises(NoSitesError, match="Leave up out"):
        vibnet.plan(stream(), X, features=["up"])


def test_what_makes_the_units_is_closed_and_nothing_else():
    gated = trained(stream())
    assert set(gated.graph.late.tolist()) == set(site_of(gated).units.tolist())
    names = {source.parameter for source in gated.graph.sources}
    assert names == {"words.weight", "down.weight", "down.bias"}


class ReadByOne(nn.Module):
    """Units under a norm and units behind a sigmoid, read by one layer."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 7)
        self.norm, self.read = Norm(6), nn.Linear(13, 3)

    def forward(self, x):
        return self.read(torch.cat([self.norm(self.a(x)), torch.sigmoid(self.b(x))], -1))


class WrittenByOne(nn.Module):
    """The same, written by one layer."""

    def __init__(self):
        super().__init__()
        self.both, self.norm = nn.Linear(4, 12), Norm(6)
        self.first, self.second = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        one, other = self.both(x).chunk(2, -1)
        return self.first(self.norm(one)) + self.second(torch.sigmoid(other))


@pytest.mark.parametrize("kind", [ReadByOne, WrittenByOne])
def test_both_kinds_of_units_may_lie_side_by_side(kind):
    torch.manual_seed(0)
    x = torch.randn(5, 4).double()
    gated = trained(kind().double(), x)
    assert 0 < len(gated.graph.late) < gated.graph.total
    with torch.no_grad():
        before = gated(x)
        small, report = vibnet.prune(gated)
        assert report.difference < 1e-12
        assert (small(x) - before).abs().max() < 1e-12
        assert shrink(gated)
        assert (gated(x) - before).abs().max() < 1e-12
        gated.train()(x)


def test_a_graph_after_two_cuts_is_that_of_one():
    one, two = trained(stream()), trained(stream())
    dead = np.zeros(one.graph.total, dtype=bool)
    dead[one.sites[0].units[[1, 2, 6]]] = True
    shrink(one, dead=dead)
    first = dead.copy()
    first[two.sites[0].units[[2, 6]]] = False
    shrink(two, dead=first)
    left = np.zeros(two.graph.total, dtype=bool)
    left[two.sites[0].units[[1, 5]]] = True
    shrink(two, dead=left)
    assert one.model.norm.eps == two.model.norm.eps == 1e-2 * 8 / 5
    with torch.no_grad():
        assert (one(X) - two(X)).abs().max() < 1e-14


def test_training_that_shrinks_goes_on_with_the_same_answers():
    gated = trained(stream())
    with torch.no_grad():
        before = gated(X)
        assert shrink(gated)
        assert (gated(X) - before).abs().max() < 1e-14
    small, report = vibnet.prune(gated)
    with torch.no_grad():
        assert (small(X) - before).abs().max() < 1e-13
    assert report.difference < 1e-13


def test_what_shrank_while_training_is_saved_with_its_eps(tmp_path):
    gated = trained(stream())
    assert shrink(gated)
    small, report = vibnet.prune(gated)
    assert report.eps == dict.fromkeys(("norm.eps", "last.eps"), 0.01 * 8 / 5)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, stream())
    with torch.no_grad():
        assert torch.equal(loaded(X), small(X))


def test_an_eps_changed_by_hand_is_refused_and_nothing_is_cut():
    gated = trained(stream())
    gated.model.norm.eps = 0.5
    before = {k: v.clone() for k, v in gated.state_dict().items()}
    for cut in (shrink, vibnet.prune):
        with pytest.raises(PlanError, match=r"norm\.eps is 0\.5, but was 0\.01 when the model was"):
            cut(gated)
    assert all(torch.equal(v, before[k]) for k, v in gated.state_dict().items())
    assert gated.model.last.eps == 1e-2


class Shares(nn.Module):
    """Two streams under norms of one module, with two weights."""

    def __init__(self, other="w2", offset=0.0):
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.rand(8) + 0.5) for _ in range(2))
        self.eps, self.other, self.offset = 1e-2, other, offset
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)
        self.d = nn.Linear(8, 3)

    def norm(self, x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * weight

    def forward(self, x):
        second = getattr(self, self.other)
        second = self.offset + second if self.offset else second
        return self.c(self.norm(self.a(x), self.w1)) + self.d(self.norm(self.b(x), second))


@pytest.mark.parametrize(("options", "what"), [({}, "eps"), ({"other": "w1", "offset": 1.0}, "w1")])
def test_norms_that_would_need_different_values_are_refused(options, what):
    found = vibnet.plan(Shares(**options), torch.randn(5, 4))
    assert found.sizes == {}
    why = f"{what} belongs to root-mean-square norms that would need different values after a cut"
    assert why in found.pinned["a"]


def test_a_buffer_that_is_added_closes_too():
    class Positions(Stream):
        def __init__(self):
            super().__init__()
            self.register_buffer("at", torch.randn(5, WIDTH))

        def between(self, h):
            return h + self.at

    torch.manual_seed(0)
    model = Positions().double()
    found = vibnet.plan(model, X)
    small, report = vibnet.prune(model, replace(found, kept={"words": [0, 3, 4]}), X)
    assert report.difference < 1e-12
    assert small.at.shape == (5, 3)


class Autoencodes(nn.Module):
    """A weight that writes units along both its dimensions, and reads the others."""

    def __init__(self, heard):
        super().__init__()
        self.enc = nn.Linear(WIDTH, 12, bias=False)
        self.words, self.norm = nn.Embedding(WORDS, WIDTH), Norm()
        self.inner = nn.ModuleList(Norm(12) for _ in range(heard))
        self.last, self.head = Norm(), nn.Linear(WIDTH, 4)

    def forward(self, x):
        h = self.words(x)
        hidden = self.enc(self.norm(h))
        h = h + F.linear(
            reduce(torch.add, (norm(hidden) for norm in self.inner)), self.enc.weight.t()
        )
        return self.head(self.last(h))


def test_a_weight_that_writes_along_both_its_dimensions_is_folded_once():
    torch.manual_seed(0)
    gated = trained(Autoencodes(1).double())
    assert gated.sites[0].name == "enc"
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-12
    assert small.enc.out_features == 8


def test_where_two_norms_hear_it_such_a_weight_holds_no_gate():
    torch.manual_seed(0)
    model = Autoencodes(2).double()
    site = site_of(analyse(model, X), "enc")
    assert "enc.weight is also used elsewhere" in site.ungated

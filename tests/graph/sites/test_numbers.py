"""Attributes of modules that count units follow the widths, where a trial shows that they do."""

import re

import pytest
import torch
from laws import law_one
from torch import nn
from torch.nn import functional as F

from vibnet import attach, load, prune, save
from vibnet.errors import ArtefactError
from vibnet.graph.trial.probe import analyse

WIDTH, HEADS, SIZE = 24, 4, 6
TOKENS = torch.randn(2, 5, WIDTH)


class Attention(nn.Module):
    """Self-attention that states its number of heads and its width."""

    def __init__(self):
        super().__init__()
        self.heads, self.inner = HEADS, HEADS * SIZE
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
        self.o = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x):
        q, k, v = (
            f(x).view(*x.shape[:2], self.heads, SIZE).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return self.o(h.reshape(*x.shape[:2], self.inner))


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Attention(), Attention())
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.last(self.blocks(x))


def test_numbers_follow_the_heads_of_every_module_on_its_own():
    gated = attach(Blocks(), TOKENS)
    with torch.no_grad():
        gated.gate("blocks.0.q").log_var[1:] = 5
        gated.gate("blocks.1.q").log_var[:1] = 5
    small, report = prune(gated.eval())
    assert [(b.heads, b.inner) for b in small.blocks] == [(1, SIZE), (3, 3 * SIZE)]
    assert report.numbers == {
        "blocks.0.heads": 1,
        "blocks.0.inner": SIZE,
        "blocks.1.heads": 3,
        "blocks.1.inner": 3 * SIZE,
    }
    assert "blocks.1.heads = 3" in str(report)
    assert [(b.heads, b.inner) for b in gated.model.blocks] == [(HEADS, HEADS * SIZE)] * 2


def test_law_one_holds():
    report, small, _ = law_one(Blocks(), TOKENS)
    for k, block in enumerate(small.blocks):
        assert block.heads == len(report.plan.kept[f"blocks.{k}.q"])


def test_a_saved_model_brings_its_numbers_along(tmp_path):
    gated = attach(Blocks(), TOKENS)
    with torch.no_grad():
        gated.gate("blocks.0.q").log_var[1:] = 5
    small, _ = prune(gated.eval())
    save(small, tmp_path)
    again = load(tmp_path, Blocks())
    assert (again.blocks[0].heads, again.blocks[1].heads) == (1, HEADS)
    assert torch.equal(again(TOKENS), small(TOKENS))


def test_a_model_that_does_not_state_the_number_is_refused_and_left_as_it_was(tmp_path):
    gated = attach(Blocks(), TOKENS)
    save(prune(gated)[0], tmp_path)
    other = Blocks()
    del other.blocks[0].heads
    before = dict(other.named_parameters())
    with pytest.raises(ArtefactError, match=r"sets blocks\.0\.heads, but this Blocks has no"):
        load(tmp_path, other)
    assert all(before[k] is v for k, v in other.named_parameters())


def reasons(model, example=TOKENS):
    return {s.name: s.reason for s in analyse(model, example).pinned}


def test_a_number_in_the_code_is_refused_with_its_line():
    class Literal(Attention):
        def forward(self, x):
            q, k, v = (
                f(x).view(*x.shape[:2], 4, SIZE).transpose(1, 2) for f in (self.q, self.k, self.v)
            )
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
            return self.o(h.reshape(*x.shape[:2], self.inner))

    assert re.search(r"view .*test_numbers\.py:\d+", reasons(nn.Sequential(Literal()))["0.q"])


def test_a_number_that_also_means_something_else_is_refused():
    class Scaled(Attention):
        def forward(self, x):
            return super().forward(x) / self.heads

    model = nn.Sequential(Scaled(), nn.Linear(WIDTH, 3))
    assert "depends on the width (4, after a trial cut" in reasons(model)["0.q"]


def test_a_number_that_counts_different_units_is_left_alone():
    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 6
            self.a, self.b, self.c = nn.Linear(24, 6), nn.Linear(24, 6), nn.Linear(6, 2)
            self.d = nn.Linear(6, 2)

        def forward(self, x):
            a, b = (f(x).view(-1, self.width) for f in (self.a, self.b))
            return self.c(a) + self.d(b)

    found = reasons(Twins(), torch.randn(5, 24))
    assert {"a", "b"} <= found.keys()
    assert all("view in the model itself" in found[name] for name in ("a", "b"))


def test_an_equal_number_that_counts_nothing_stays():
    class Kernel(Attention):
        def __init__(self):
            super().__init__()
            self.window = HEADS

        def forward(self, x):
            return super().forward(x)[:, : self.window]

    model = nn.Sequential(Kernel(), nn.Linear(WIDTH, 3))
    gated = attach(model, TOKENS)
    with torch.no_grad():
        gated.gate("0.q").log_var[0] = 5
    small, report = prune(gated.eval())
    assert (small[0].heads, small[0].window) == (3, 4)
    assert "0.window" not in report.numbers


def test_a_number_of_both_parts_of_a_split_follows():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 8
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            left, right = self.a(x).split(self.width // 2, dim=1)
            return self.b(left) + self.c(right)

    model, example = nn.Sequential(Halves(), nn.Linear(3, 2)), torch.randn(6, 5)
    gated = attach(model, example)
    with torch.no_grad():
        gated.gate("0.a").log_var[[0, 5]] = 5
    small, report = prune(gated.eval())
    assert small[0].width == small[0].a.out_features == 6
    assert report.numbers == {"0.width": 6}


class SelfCross(nn.Module):
    """Self-attention and cross-attention that state one number of heads for both."""

    def __init__(self):
        super().__init__()
        self.heads = HEADS
        self.a, self.b, self.c, self.d, self.e, self.f, self.g = (
            nn.Linear(WIDTH, WIDTH) for _ in range(7)
        )
        self.norm, self.h = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x, y):
        b, t, s = *x.shape[:2], y.shape[1]
        q = self.a(x).view(b, t, self.heads, -1)
        k = self.b(x).view(b, t, self.heads, -1)
        v = self.c(x).view(b, t, self.heads, -1)
        x = self.norm(x + self.d(self.attend(q, k, v)))
        q = self.e(x).view(b, t, self.heads, -1)
        k = self.f(y).view(b, s, self.heads, -1)
        v = self.g(y).view(b, s, self.heads, -1)
        return self.h(self.attend(q, k, v))

    def attend(self, *given):
        q, k, v = (x.transpose(1, 2) for x in given)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_a_number_of_two_attentions_that_the_first_trial_cuts_alike_is_found_by_the_second():
    example = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    graph = analyse(SelfCross(), example)
    assert {"a", "e"}.isdisjoint(s.name for s in graph.sites)


def test_two_numbers_of_which_one_fits_one_count_of_heads_only_follow_together():
    class Repeated(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = self.kv = 4
            self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

        def forward(self, x):
            b, t, _ = x.shape
            q = self.q(x).view(b, t, self.kv, self.h // self.kv, 3)
            k, v = (f(x).view(b, t, -1, 1, 3) for f in (self.k, self.v))
            q, k, v = (y.flatten(2, 3).transpose(1, 2) for y in (q, k, v))
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model, example = nn.Sequential(Repeated(), nn.Linear(12, 2)), torch.randn(2, 8, 12)
    assert analyse(model, example).numbers.keys() == {("0", "h"), ("0", "kv")}
    for seed in range(4):
        found = law_one(nn.Sequential(Repeated(), nn.Linear(12, 2)), example, seed=seed)
        assert found is not None


def test_attributes_that_are_not_needed_stay_though_none_helps_alone():
    class Window(nn.Module):
        def __init__(self):
            super().__init__()
            self.h = self.kv = self.window = 4
            self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))

        def forward(self, x):
            b, t, _ = x.shape
            assert self.h % self.kv == 0
            q, k, v = (
                f(x).view(b, t, self.h, 3 * self.kv // self.h) for f in (self.q, self.k, self.v)
            )
            a = torch.einsum("btgd,bsgd->bgts", q, k)
            hidden = torch.ones(t, t, dtype=torch.bool).tril(-self.window)
            a = a.masked_fill(hidden, -1e4).softmax(-1)
            return self.o(torch.einsum("bgts,bsgd->btgd", a, v).reshape(b, t, -1))

    graph = analyse(nn.Sequential(Window(), nn.Linear(12, 2)), torch.randn(2, 8, 12))
    assert ("0", "window") not in graph.numbers


USES = {
    "padding": lambda x, n, c: F.conv1d(x.mT, c, padding=n, dilation=n).mT,
    "positions": lambda x, n, _: x * torch.arange(n, n + x.shape[1])[:, None],
    "end of a range": lambda x, n, _: x * torch.linspace(1, n, x.shape[1])[:, None],
    "order of a norm": lambda x, n, _: x * x.norm(p=n, dim=-1, keepdim=True),
    "rank": lambda x, n, _: x + x.kthvalue(n, dim=1, keepdim=True)[0],
    "diagonal": lambda x, n, _: torch.ones(x.shape[1], x.shape[1]).triu(n).to(x) @ x,
    "window": lambda x, n, _: F.max_pool1d(x.mT, 2 * n + 1, 1, n).mT,
}


@pytest.mark.parametrize("name", USES)
def test_a_whole_number_with_a_second_use_is_refused(name):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 4
            self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
            self.c = nn.Parameter(torch.randn(12, 12, 3))

        def forward(self, x):
            b, t, _ = x.shape
            q, k, v = (
                f(x).view(b, t, self.n, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
            )
            h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return USES[name](self.o(h), self.n, self.c)

    graph = analyse(nn.Sequential(Twice(), nn.Linear(12, 2)), torch.randn(2, 10, 12))
    assert "0.q" not in {s.name for s in graph.sites}


@pytest.mark.parametrize("value", [True, False, 0])
def test_what_is_no_number_of_units_is_not_tried(value):
    class Flag(nn.Module):
        def __init__(self):
            super().__init__()
            self.flag = value
            self.a, self.b = nn.Linear(4, 1), nn.Linear(1, 2)

        def forward(self, x):
            return self.b(self.a(x).view(-1, 1))

    assert analyse(Flag(), torch.randn(3, 4)).numbers == {}

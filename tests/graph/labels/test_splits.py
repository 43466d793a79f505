"""Which axis of a view carries units: heads in an attention, places of blocks in a shuffle."""

import pytest
import torch
from laws import law_one
from torch import nn
from torch.nn import functional as F

from vibnet import attach, prune
from vibnet.graph.trial.probe import analyse

WIDTH, HEADS, SIZE = 24, 4, 6
TOKENS = torch.randn(2, 5, WIDTH)


class Attention(nn.Module):
    """Self-attention whose number of heads follows its widths; `how` computes it."""

    def __init__(self, how, kv_heads=HEADS):
        super().__init__()
        self.how = how
        self.q = nn.Linear(WIDTH, HEADS * SIZE)
        self.k, self.v = nn.Linear(WIDTH, kv_heads * SIZE), nn.Linear(WIDTH, kv_heads * SIZE)
        self.o = nn.Linear(HEADS * SIZE, WIDTH)
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x):
        q, k, v = (
            y.view(*x.shape[:2], -1, SIZE).transpose(1, 2)
            for y in (self.q(x), self.k(x), self.v(x))
        )
        h = self.how(q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1)
        return self.last(x + self.o(h))


def by_hand(q, k, v):
    return (q @ k.transpose(2, 3) * SIZE**-0.5).softmax(-1) @ v


def by_einsum(q, k, v):
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * SIZE**-0.5
    return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


def masked(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def with_a_mask(q, k, v):
    hidden = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)


def dropped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)


def turned(q, k, v):
    """Rotary positions whose angles are made in the forward."""
    rates = 100 ** (-torch.arange(0, SIZE, 2) / SIZE)
    angles = torch.outer(torch.arange(q.shape[2]), rates).repeat(1, 2)

    def rotated(x):
        one, other = x.chunk(2, -1)
        return x * angles.cos() + torch.cat([-other, one], -1) * angles.sin()

    return F.scaled_dot_product_attention(rotated(q), rotated(k), v)


def grouped(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = (
        y[:, :, None].expand(-1, -1, times, -1, -1).reshape(y.shape[0], -1, *y.shape[2:])
        for y in (k, v)
    )
    return F.scaled_dot_product_attention(q, k, v)


def grouped_by_torch(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


HOW = {f.__name__: f for f in (by_hand, by_einsum, masked, with_a_mask, dropped, turned)}


def sites(model, example=TOKENS):
    return {s.name: s.size for s in analyse(model, example).sites}


@pytest.mark.parametrize("name", HOW)
def test_heads_are_units(name):
    model = Attention(HOW[name])
    assert sites(model) == {"q": HEADS}
    report, small, _ = law_one(model, TOKENS)
    heads = len(report.plan.kept["q"])
    assert heads < HEADS
    assert small.q.out_features == small.v.out_features == small.o.in_features == heads * SIZE


@pytest.mark.parametrize("how", [grouped, grouped_by_torch])
def test_a_key_head_goes_with_its_queries(how):
    model = Attention(how, kv_heads=2)
    assert sites(model) == {"q": 2}
    report, small, _ = law_one(model, TOKENS)
    assert len(report.plan.kept["q"]) == 1
    assert (small.q.out_features, small.k.out_features) == (2 * SIZE, SIZE)


class Fused(nn.Module):
    """Queries, keys and values from one layer, laid out in different orders."""

    def __init__(self, order):
        super().__init__()
        self.order = order
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, x):
        y = self.qkv(x)
        if self.order == "three first":
            q, k, v = y.view(*x.shape[:2], 3, -1, SIZE).permute(2, 0, 3, 1, 4)
        elif self.order == "heads first":
            q, k, v = y.view(*x.shape[:2], -1, 3, SIZE).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = (z.view(*x.shape[:2], -1, SIZE).transpose(1, 2) for z in y.chunk(3, -1))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(*x.shape[:2], -1)
        return self.last(F.relu(self.o(h)))


@pytest.mark.parametrize("order", ["three first", "heads first", "chunked"])
def test_heads_of_a_fused_layer_are_units(order):
    model = Fused(order)
    assert sites(model)["qkv"] == HEADS
    _, small, _ = law_one(model, TOKENS)
    assert small.qkv.out_features == 3 * small.o.in_features


def test_a_shuffle_keeps_the_places_of_its_blocks():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            h = F.relu(self.a(x))
            n, c, *space = h.shape
            h = h.view(n, 2, c // 2, *space).transpose(1, 2).reshape(n, c, *space)
            return self.b(h)

    assert sites(Shuffled(), torch.randn(2, 3, 4, 4)) == {"a": 4}


def test_a_bias_per_head_made_in_the_code_keeps_the_heads_whole():
    class Slopes(Attention):
        def __init__(self):
            super().__init__(self.slanted)

        def slanted(self, q, k, v):
            slopes = 2.0 ** -torch.arange(1, HEADS + 1).view(1, -1, 1, 1)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=slopes * torch.ones(5, 5))

    reasons = {s.name: s.reason for s in analyse(Slopes(), TOKENS).pinned}
    assert "a constant made inside forward" in reasons["q"]


def test_a_gate_multiplies_whole_heads():
    model = Attention(masked)
    gated = attach(model, TOKENS)
    with torch.no_grad():
        gated.gates["q"].mu.fill_(1)
        gated.gates["q"].log_var[1] = 5
    gated.eval()
    small, report = prune(gated)
    assert report.plan.kept["q"] == [0, 2, 3]
    rows = [*range(SIZE), *range(2 * SIZE, 4 * SIZE)]
    assert torch.equal(small.k.weight, model.k.weight[rows])
    torch.testing.assert_close(small(TOKENS), gated(TOKENS))


@pytest.mark.parametrize("shape", [(5, 7), (1, 1, 5, 7), (2, 1, 5, 7), (2, 4, 5, 7)])
def test_cross_attention_with_a_mask_of_its_own_lengths(shape):
    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * SIZE) for _ in range(3))
            self.o, self.last = nn.Linear(HEADS * SIZE, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x, y, mask):
            q, k, v = (
                f(z).view(*z.shape[:2], -1, SIZE).transpose(1, 2)
                for f, z in ((self.q, x), (self.k, y), (self.v, y))
            )
            h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self.last(x + self.o(h.transpose(1, 2).flatten(2)))

    example = TOKENS, torch.randn(2, 7, WIDTH), torch.randn(shape)
    found = sites(Cross(), example)
    if len(shape) == 4 and shape[1] == HEADS:
        assert found == {}  # a number for every head is given from outside
    else:
        assert found == {"q": HEADS}
        assert law_one(Cross(), example) is not None


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_a_trial_that_leaves_one_head_meets_an_axis_of_size_one(kv_heads):
    def rotated(q, k, v):
        angle = torch.arange(q.shape[2], dtype=q.dtype).view(1, 1, -1, 1)
        return grouped(q * angle.cos(), k * angle.cos(), v)

    model = Attention(rotated, kv_heads=kv_heads)
    assert sites(model) == {"q": kv_heads}
    assert law_one(model, TOKENS) is not None

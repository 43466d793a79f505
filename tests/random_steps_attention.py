"""Steps of random networks as in transformers: attentions of many spellings, gated hidden units."""

import torch
import torch.nn.functional as F
from random_modules import root_mean_square
from random_program import TOKENS, Skip, table_of
from torch import nn

STEPS = {}
step = table_of(STEPS)
LAYOUTS = ("three first", "heads first", "chunked", "split by a number")
WAYS = ("one call", "by hand", "einsum", "biased", "masked", "rotated", "normed")


class Projections(nn.Module):
    """Queries, keys and values of one layer or three, as ``(batch, heads, tokens, size)``."""

    def __init__(self, width, heads, size, rng):
        super().__init__()
        self.size, self.heads, self.width = size, heads, heads * size
        self.fused = rng.random() < 0.5
        self.layout, self.stated = rng.choice(LAYOUTS), rng.random() < 0.5
        self.groups = 1
        if self.fused:
            self.qkv = nn.Linear(width, 3 * heads * size, bias=rng.random() < 0.7)
        else:
            self.groups = rng.choice([1, 1, 2]) if heads % 2 == 0 else 1
            self.q = nn.Linear(width, heads * size)
            self.k, self.v = (nn.Linear(width, heads // self.groups * size) for _ in range(2))

    def forward(self, x):
        heads = self.heads if self.stated else -1
        lead = x.shape[:2]
        if not self.fused:
            q = self.q(x).view(*lead, heads, self.size).transpose(1, 2)
            k, v = (f(x).view(*lead, -1, self.size).transpose(1, 2) for f in (self.k, self.v))
            if self.groups > 1:
                k, v = (y.repeat_interleave(self.groups, 1) for y in (k, v))
            return q, k, v
        y = self.qkv(x)
        if self.layout == "three first":
            return y.view(*lead, 3, heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        if self.layout == "heads first":
            return y.view(*lead, heads, 3, self.size).permute(3, 0, 2, 1, 4).unbind(0)
        parts = y.chunk(3, -1) if self.layout == "chunked" else y.split(self.width, -1)
        return [part.view(*lead, -1, self.size).transpose(1, 2) for part in parts]


class RandomAttention(nn.Module):
    """Self-attention in one of many spellings; some state their number of heads."""

    def __init__(self, width, heads, size, way, rng):
        super().__init__()
        self.way, self.scale = way, size**-0.5
        self.projections = Projections(width, heads, size, rng)
        self.inner, self.states_inner = heads * size, rng.random() < 0.3
        self.out = nn.Linear(heads * size, width, bias=rng.random() < 0.7)
        self.drop = nn.Dropout(0.1)
        if way == "biased":
            self.bias = nn.Parameter(torch.randn(heads, 1, 1))
        if way == "normed":
            self.norm_q, self.norm_k = nn.LayerNorm(size), root_mean_square(size, rng)

    def forward(self, x):
        q, k, v = self.projections(x)
        if self.way == "rotated":
            q, k = (self.rotated(y) for y in (q, k))
        if self.way == "normed":
            q, k = self.norm_q(q), self.norm_k(k)
        if self.way == "one call":
            h = F.scaled_dot_product_attention(q, k, v)
        elif self.way == "masked":
            h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.way == "einsum":
            scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.scale
            h = torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)
        else:
            scores = q @ k.transpose(-2, -1) * self.scale
            if self.way == "biased":
                scores = scores + self.bias
            h = self.drop(scores.softmax(-1)) @ v
        h = h.transpose(1, 2)
        h = h.reshape(*h.shape[:2], self.inner) if self.states_inner else h.flatten(2)
        return self.out(h)

    @staticmethod
    def rotated(x):
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        angle = torch.arange(x.shape[2], dtype=x.dtype).view(-1, 1) / (1 + half)
        return x * angle.cos() + turned * angle.sin()


class Gated(nn.Module):
    """Hidden units that other hidden units open and close, apart or from one layer."""

    def __init__(self, width, hidden, fused):
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden if fused else hidden)
        self.gate = None if fused else nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width)

    def forward(self, x):
        if self.gate is None:
            a, b = self.up(x).chunk(2, -1)
        else:
            a, b = self.up(x), self.gate(x)
        return self.down(F.silu(a) * b)


class Residual(nn.Module):
    """A block beside the stream, with a norm in front, behind, or none."""

    def __init__(self, block, width, norm, rng):
        super().__init__()
        self.block, self.first = block, norm == "in front"
        self.norm = nn.Identity()
        if norm != "none":
            self.norm = rng.choice([nn.LayerNorm(width), root_mean_square(width, rng)])

    def forward(self, x):
        return x + self.block(self.norm(x)) if self.first else self.norm(x + self.block(x))


def _beside(b, rng, x, block):
    norm = rng.choice(["in front", "behind", "none"])
    b.layer(Residual(block, b.channels(x), norm, rng) if rng.random() < 0.8 else block, x)


@step(5, *(f"attention {way}" for way in WAYS))
def attention(b, rng):
    x = b.pick(rng, TOKENS)
    if b.shape(x)[1] > 64:
        raise Skip
    way = rng.choice(WAYS)
    block = RandomAttention(b.channels(x), rng.choice([2, 3, 4]), rng.choice([2, 4]), way, rng)
    _beside(b, rng, x, block)
    b.constructs.add(f"attention {way}")


@step(3)
def gated_hidden(b, rng):
    x = b.pick(rng, TOKENS)
    _beside(b, rng, x, Gated(b.channels(x), rng.choice([4, 6, 8]), rng.random() < 0.5))
    b.constructs.add("gated_hidden")

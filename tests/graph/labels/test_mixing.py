"""Units that a statistic goes over: whole, or cut with outputs that move where that is allowed."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import vibnet
from vibnet.errors import ConfigError, VerificationError
from vibnet.graph.trial import cut as cutting
from vibnet.surgery.verify import answers, difference
from vibnet.train.shrink import shrink

X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    """Eight units with something over them, a reader, and a site that is exact all the same."""

    def __init__(self, over, units=8):
        super().__init__()
        self.make, self.over = nn.Linear(4, units), over
        self.read, self.last = nn.Linear(units, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.read(self.over(self.make(x)))))


class Turned(nn.Module):
    """A norm over channels that come second."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


OVER = {
    "layer norm": lambda: nn.LayerNorm(8),
    "layer norm without a bias": lambda: nn.LayerNorm(8, bias=False),
    "one group": lambda: Turned(nn.GroupNorm(1, 8)),
    "softmax": lambda: nn.Softmax(-1),
    "log softmax": lambda: nn.LogSoftmax(-1),
}
WIDE = 4  # of the eight units that a test keeps


def body(name):
    torch.manual_seed(0)
    model = Body(OVER[name]())
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.2, 1)
    return model


@pytest.mark.parametrize("name", OVER)
def test_units_under_a_statistic_stay_whole_unless_it_is_allowed(name):
    plain = vibnet.plan(body(name), X)
    assert plain.inexact == {}
    assert set(plain.sizes) == {"read"}
    assert "takes a statistic over it" in plain.pinned["make"] or "mixes it" in plain.pinned["make"]
    allowed = vibnet.plan(body(name), X, allow_inexact=True)
    assert allowed.sizes == {"make": 8, "read": 6}
    assert set(allowed.inexact) == {"make"}
    assert "moves outputs: " in str(allowed)
    assert allowed.cuttable["macs"] == 1.0


@pytest.mark.parametrize("name", OVER)
def test_the_report_says_how_far_outputs_moved_and_the_rest_is_exact(name):
    model = body(name).double()
    x = X.double()
    found = vibnet.plan(model, x, allow_inexact=True)
    kept = {"make": list(range(WIDE)), "read": [0, 1, 5]}
    small, report = vibnet.prune(model, replace(found, kept=kept), x)
    assert small.make.out_features == WIDE
    assert report.difference < 1e-13
    told = f"NOT EXACT: units of make went; outputs moved by {report.moved:.1e} of their scale"
    assert told in str(report)
    _, blindly = vibnet.prune(model, replace(found, kept=kept), x, verify=False)
    assert "NOT EXACT: units of make went; how far outputs moved is not known" in str(blindly)
    blind = body(name).double()  # whole, its readers blind for what goes
    with torch.no_grad():
        blind.read.weight[:, WIDE:] = 0
        blind.last.weight[:, [2, 3, 4]] = 0
    gap = difference(answers(blind, x, None), answers(small, x, None))
    assert 1e-4 < gap <= report.moved * (1 + 1e-9)


@pytest.mark.parametrize("name", OVER)
def test_an_exact_cut_of_such_a_model_is_verified_as_ever(name):
    model = body(name)
    found = vibnet.plan(model, X, allow_inexact=True)
    _, report = vibnet.prune(model, replace(found, kept={"read": [0, 1, 5]}), X)
    assert report.difference < 1e-13
    assert report.moved is None
    assert "NOT EXACT" not in str(report)


def test_a_fault_in_the_exact_part_is_still_found(monkeypatch):
    model = body("layer norm")
    found = vibnet.plan(model, X, allow_inexact=True)
    right = cutting.positions

    def wrong(graph, name, kept):
        out = right(graph, name, kept)
        return [i[::-1].copy() for i in out] if name == "last.weight" else out

    monkeypatch.setattr(cutting, "positions", wrong)
    kept = {"make": list(range(WIDE)), "read": [0, 1, 5]}
    with pytest.raises(VerificationError, match="the small model answers differently"):
        vibnet.prune(model, replace(found, kept=kept), X)


def test_gates_stand_at_readers_and_training_shrinks():
    gated = vibnet.attach(body("layer norm"), X, allow_inexact=True)
    assert {(p.at, p.argument) for p in gated.places} == {("read", 0), ("last", 0)}
    with torch.no_grad():
        gated.gate("make").mu[::2] = 1e-6
    gated.eval()
    assert shrink(gated)
    assert gated.model.over.normalized_shape == (WIDE,)
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-13
    assert small.read.in_features == WIDE
    assert "NOT EXACT: units of make went; they went while it trained" in str(report)


@pytest.mark.parametrize("name", OVER)
def test_saved_models_come_back(name, tmp_path):
    model = body(name)
    found = vibnet.plan(model, X, allow_inexact=True)
    small, _ = vibnet.prune(model, replace(found, kept={"make": [0, 2, 3]}), X)
    vibnet.save(small, tmp_path)
    loaded = vibnet.load(tmp_path, body(name))
    assert torch.equal(loaded.eval()(X), small.eval()(X))


REFUSED = {
    "a literal width": lambda x: F.layer_norm(x, (8,)),
    "two axes": lambda x: F.layer_norm(x, x.shape[1:]),
    "a mean": lambda x: x - x.mean(-1, keepdim=True),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_follow_its_width_stays_whole_even_so(name):
    class Step(nn.Module):
        def forward(self, x):
            return REFUSED[name](x)

    found = vibnet.plan(Body(Step()), X, allow_inexact=True)
    assert "make" in found.pinned


def test_whole_groups_of_several_stay_exact_where_it_is_allowed():
    model = Body(Turned(nn.GroupNorm(4, 8)))
    found = vibnet.plan(model, X, allow_inexact=True)
    assert found.inexact == {}
    assert found.sizes["make"] == 4
    _, report = vibnet.prune(model, replace(found, kept={"make": [2]}), X)
    assert report.moved is None


def test_heads_whose_queries_are_normed_one_by_one_are_exact():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))
            self.norm = nn.LayerNorm(2)

        def heads(self, layer, x):
            return layer(x).unflatten(-1, (-1, 2)).transpose(1, 2)

        def forward(self, x):
            q, k, v = (self.heads(layer, x) for layer in (self.q, self.k, self.v))
            h = F.scaled_dot_product_attention(self.norm(q), self.norm(k), v)
            return self.out(h.transpose(1, 2).flatten(2))

    model, x = Attention(), torch.randn(3, 5, 8)
    found = vibnet.plan(model, x)
    assert found.sizes == {"q": 4}
    _, report = vibnet.prune(model, replace(found, kept={"q": [1, 3]}), x)
    assert report.difference < 1e-13


def test_the_flag_is_a_flag():
    with pytest.raises(ConfigError, match="allow_inexact must be True or False"):
        vibnet.attach(body("softmax"), X, allow_inexact=1)

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.graph.capture.capture import capture
from vibnet.graph.capture.trace import Call, Trace
from vibnet.graph.labels.norms import close, find

WIDTH = 6


class Spelled(nn.Module):
    """A norm by any of its spellings; the weight is no row of ones."""

    def __init__(self, how):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, WIDTH))
        self.gain, self.gains = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(1))
        self.eps, self.how = 1e-3, how

    def forward(self, x):
        return self.how(self, x)


def mean_of_squares(x):
    return x.pow(2).mean(-1, keepdim=True)


def llama(m, x):
    h = x.to(torch.float32)
    return m.weight * (h * torch.rsqrt(mean_of_squares(h) + m.eps)).to(x.dtype)


def gemma(m, x):
    h = x.float()
    return (h * torch.rsqrt(mean_of_squares(h) + m.eps) * (1.0 + m.weight.float())).type_as(x)


def squares_written_over(m, x):
    squares = x.pow(2)
    y = x * torch.rsqrt(squares.mean(-1, True) + m.eps) * m.weight
    squares.zero_()
    return y


SPELLINGS = {
    "llama": llama,
    "gemma": gemma,
    "divided": lambda m, x: x / torch.sqrt(mean_of_squares(x) + m.eps) * m.weight,
    "power": lambda m, x: x * (mean_of_squares(x) + m.eps).pow(-0.5) * m.weight,
    "product": lambda m, x: x * torch.rsqrt((x * x).mean(-1, True) + m.eps) * m.weight,
    "in place": lambda m, x: x * mean_of_squares(x).add_(m.eps).rsqrt_() * m.weight,
    "functional": lambda m, x: F.rms_norm(x, (WIDTH,), m.weight, m.eps),
    "no eps": lambda m, x: x * torch.rsqrt(mean_of_squares(x)) * m.weight,
    "squares written over": squares_written_over,
}


def found_in(model, x=None):
    trace = capture(model, torch.randn(2, 3, WIDTH) if x is None else x)[-1]
    return trace, find(trace)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_found_with_weight_offset_and_eps(name):
    trace, norms = found_in(nn.Sequential(Spelled(SPELLINGS[name])))
    ((number, norm),) = norms.items()
    assert trace.calls[number].op == "mean"
    assert not norm.reason
    assert norm.source.shape == (2, 3, WIDTH)
    assert (norm.weight, norm.offset) == ("0.weight", 1.0 if name == "gemma" else 0.0)
    want = ("", "", 0.0) if name == "no eps" else ("0", "eps", 1e-3)
    assert (norm.module, norm.attribute, norm.eps) == want
    assert trace.calls[norm.scaling].op == ("add" if name == "gemma" else "mul")


OTHERS = {
    "another tensor is divided": lambda m, x: x.exp() * torch.rsqrt(mean_of_squares(x) + m.eps),
    "a layer norm": lambda m, x: F.layer_norm(x, (WIDTH,), m.weight),
    "a cube": lambda m, x: x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True) + m.eps) * m.weight,
    "over tokens": lambda m, x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + m.eps) * m.weight,
    "over two axes": lambda m, x: x * torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + m.eps),
    "no root": lambda m, x: x * (mean_of_squares(x) + m.eps) * m.weight,
    "root times": lambda m, x: x * torch.sqrt(mean_of_squares(x) + m.eps) * m.weight,
    "upside down": lambda m, x: torch.sqrt(mean_of_squares(x) + m.eps) / x * m.weight,
    "over everything": lambda m, x: x * torch.rsqrt(torch.ops.aten.mean.dim(x * x, None, True)),
    "a product": lambda m, x: x * torch.rsqrt((x * x.exp()).mean(-1, True) + m.eps) * m.weight,
    "a sum": lambda m, x: x * torch.rsqrt((x + x).mean(-1, True) + m.eps) * m.weight,
    "eps is taken away": lambda m, x: x * torch.rsqrt(mean_of_squares(x) - m.eps) * m.weight,
    "eps is a factor": lambda m, x: x * torch.rsqrt(mean_of_squares(x) * m.eps) * m.weight,
    "twice eps": lambda m, x: x * torch.rsqrt(mean_of_squares(x).add(m.eps, alpha=2)) * m.weight,
    "no root but a curve": lambda m, x: x * torch.sigmoid(mean_of_squares(x) + m.eps) * m.weight,
    "another power": lambda m, x: x * (mean_of_squares(x) + m.eps).pow(-1) * m.weight,
    "the root twice": lambda m, x: x * ((r := mean_of_squares(x).rsqrt()) * r) * m.weight,
    "half the root": lambda m, x: x * (torch.rsqrt(mean_of_squares(x) + m.eps) * 0.5) * m.weight,
    "the root by itself": lambda m, x: x * mean_of_squares(x).rsqrt().pow(1.0) * m.weight,
    "a tensor is added": lambda m, x: x * torch.rsqrt(mean_of_squares(x) + x[:1, :1, :1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_something_else_is_not_found(name):
    assert found_in(nn.Sequential(Spelled(OTHERS[name])))[1] == {}


def root_of(m, x):
    mean = mean_of_squares(x)
    return mean, torch.rsqrt(mean + m.eps)


def kept(m, x):
    m.seen, root = root_of(m, x)
    return x * root * m.weight


USED_TWICE = {
    "mean": lambda m, x: x * (r := root_of(m, x))[1] * m.weight + r[0],
    "mean, cast": lambda m, x: x * (r := root_of(m, x))[1] * m.weight + r[0].detach(),
    "mean, given": lambda m, x: (x * (r := root_of(m, x))[1] * m.weight, r[0]),
    "mean, cast and given": lambda m, x: (x * (r := root_of(m, x))[1] * m.weight, r[0].detach()),
    "mean, kept": kept,
    "root": lambda m, x: x * (r := root_of(m, x))[1] * m.weight + r[1],
    "root, given": lambda m, x: (x * (r := root_of(m, x))[1] * m.weight, r[1]),
    "root, for the same": lambda m, x: (x * (r := root_of(m, x))[1] * m.weight, x * r[1]),
}


@pytest.mark.parametrize("name", USED_TWICE)
def test_a_mean_or_root_with_another_use_is_of_no_norm(name):
    assert found_in(nn.Sequential(Spelled(USED_TWICE[name])))[1] == {}


def test_a_mean_that_stays_on_no_axis_of_its_own_is_of_no_norm():
    model = Spelled(lambda m, x: x * torch.rsqrt(x.pow(2).mean(-1) + m.eps) * m.weight)
    assert found_in(nn.Sequential(model), torch.randn(WIDTH, WIDTH))[1] == {}


def test_a_mean_of_what_no_call_made_is_of_no_norm():
    x = torch.randn(2, WIDTH)
    mean = Call("mean", False, (x, [-1], True), {}, x[:, :1], (), "", "model.py:1")
    last = Call("empty", False, (), {}, x[:0], (), "", "model.py:2")
    assert find(Trace(False, nn.Identity(), calls=[mean, last])) == {}


@pytest.mark.parametrize("name", ["llama", "gemma"])
def test_casts_on_the_way_are_passed(name):
    model = nn.Sequential(Spelled(SPELLINGS[name])).double()
    trace, norms = found_in(model, torch.randn(2, 3, WIDTH).double())
    assert sum(call.op == "_to_copy" for call in trace.calls) >= 2
    ((_, norm),) = norms.items()
    assert (norm.weight, norm.attribute, norm.reason) == ("0.weight", "eps", "")


REFUSED = {
    "a literal": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + 1e-5) * m.weight,
        r"with eps = 1e-05, which must follow the width, but no attributes of Spelled hold that",
    ),
    "no weight": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps),
        "no parameter of that width follows .* give the norm a weight",
    ),
    "a computed weight": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) * m.weight.exp(),
        "no parameter of that width",
    ),
    "a weight that is added": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) + m.weight,
        "no parameter of that width",
    ),
    "twice a weight": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) * (m.weight * 2.0),
        "no parameter of that width",
    ),
    "a weight and a tensor": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) * (m.weight + m.weight.exp()),
        "no parameter of that width",
    ),
    "one number for all": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) * m.gain,
        "no parameter of that width",
    ),
    "a row of one": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + m.eps) * m.gains,
        "no parameter of that width",
    ),
    "no weight and a literal": (
        lambda m, x: x * torch.rsqrt(mean_of_squares(x) + 1e-5),
        "give the norm a weight",
    ),
    "its weight in front of it": (
        lambda m, x: (h := x * m.weight) * torch.rsqrt(mean_of_squares(h) + m.eps),
        "no parameter of that width",
    ),
    "two uses of the result": (
        lambda m, x: (h := x * torch.rsqrt(mean_of_squares(x) + m.eps)) * m.weight + h,
        "no parameter of that width",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_norm_that_cannot_follow_says_why(name):
    how, why = REFUSED[name]
    ((_, norm),) = found_in(nn.Sequential(Spelled(how)))[1].items()
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(norm.reason)


def test_two_attributes_of_one_value_are_not_told_apart():
    model = Spelled(llama)
    model.other = model.eps
    ((_, norm),) = found_in(nn.Sequential(model))[1].items()
    assert "but 2 attributes of Spelled hold that number" in norm.reason


def test_whole_numbers_are_no_eps():
    model = Spelled(llama)
    model.eps, model.heads, model.causal = 1.0, 1, True
    ((_, norm),) = found_in(nn.Sequential(model))[1].items()
    assert (norm.attribute, norm.reason) == ("eps", "")


def test_a_number_added_at_first_is_no_offset():
    ((_, norm),) = found_in(nn.Sequential(Spelled(lambda m, x: llama(m, x + 0.5))))[1].items()
    assert (norm.weight, norm.offset, norm.reason) == ("0.weight", 0.0, "")


def test_torchs_norm_without_eps_is_refused():
    ((_, norm),) = found_in(nn.Sequential(nn.RMSNorm(WIDTH)))[1].items()
    assert "no attributes of RMSNorm hold that number" in norm.reason


def test_numbers_are_compared_in_single_precision():
    assert close(float(np.float32(1e-5)), 1e-5)
    assert not close(1.1e-5, 1e-5)


def fused(eps, shape=(WIDTH,), weight=True):
    """The norm of a trace that holds the one call of torch's kernel on a GPU."""
    model = nn.RMSNorm(WIDTH, eps=1e-3)
    x = torch.randn(2, WIDTH)
    given = x, list(shape), model.weight if weight else None, eps
    call = Call("_fused_rms_norm", False, given, {}, (x.clone(), x[:, :1]), (0,), "", "model.py:1")
    trace = Trace(False, model, calls=[call], state={id(model.weight): "weight"})
    return find(trace)[0]


def test_the_one_call_of_a_gpu_is_found_too():
    norm = fused(1e-3)
    assert (norm.weight, norm.attribute, norm.eps, norm.reason) == ("weight", "eps", 1e-3, "")
    assert (norm.call, norm.scaling, norm.gives, norm.adding) == (0, 0, 0, 0)
    assert "no eps of its own" in fused(None).reason
    assert "several axes" in fused(1e-3, (2, WIDTH)).reason
    assert "give the norm a weight" in fused(1e-3, weight=False).reason

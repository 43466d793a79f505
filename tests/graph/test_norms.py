import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vibnet.graph.capture import capture
from vibnet.graph.norms import close, find
from vibnet.graph.trace import Call, Trace

WIDTH = 6


class Spelled(nn.Module):
    """A norm by any of its spellings; the weight is no row of ones."""

    def __init__(self, how):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2, WIDTH))
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


SPELLINGS = {
    "llama": llama,
    "gemma": gemma,
    "divided": lambda m, x: x / torch.sqrt(mean_of_squares(x) + m.eps) * m.weight,
    "power": lambda m, x: x * (mean_of_squares(x) + m.eps).pow(-0.5) * m.weight,
    "product": lambda m, x: x * torch.rsqrt((x * x).mean(-1, True) + m.eps) * m.weight,
    "in place": lambda m, x: x * mean_of_squares(x).add_(m.eps).rsqrt_() * m.weight,
    "functional": lambda m, x: F.rms_norm(x, (WIDTH,), m.weight, m.eps),
    "no eps": lambda m, x: x * torch.rsqrt(mean_of_squares(x)) * m.weight,
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
    "a tensor is added": lambda m, x: x * torch.rsqrt(mean_of_squares(x) + x[:1, :1, :1]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_something_else_is_not_found(name):
    assert found_in(nn.Sequential(Spelled(OTHERS[name])))[1] == {}


def test_a_mean_with_another_use_is_no_norm():
    def how(m, x):
        mean = mean_of_squares(x)
        return x * torch.rsqrt(mean + m.eps) * m.weight + mean

    assert found_in(nn.Sequential(Spelled(how)))[1] == {}


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

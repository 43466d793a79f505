import copy
import dataclasses
import sys

import pytest
import torch
from laws import close_units
from torch import nn

import vibnet
from vibnet import attach, plan, prune
from vibnet.errors import VerificationError
from vibnet.graph.labels.rules import TABLE
from vibnet.surgery import verify
from vibnet.surgery.verify import answers, difference, reference, shuffled

pruning = sys.modules["vibnet.surgery.prune"]  # the function has the module's name


def three():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def closed(model, example, seed=0):
    gated = attach(model.double(), example.double())
    close_units(gated, 0.5, seed)
    return gated


class Flipped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.b(self.a(x).relu().flip(1))


def test_a_wrong_rule_is_caught_and_changes_nothing(monkeypatch):
    torch.manual_seed(0)
    model = Flipped()
    monkeypatch.setitem(TABLE, "flip", lambda engine, call: engine.dims(call.args[0]))
    made = dataclasses.replace(plan(model, X), kept={"a": [0, 1]})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(VerificationError, match=r"answers differently.*Nothing was changed"):
        prune(model, made, X)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    gated = attach(model, X)
    close_units(gated, 0.5, 1)
    state = copy.deepcopy(gated.state_dict())
    with pytest.raises(VerificationError, match=r"answers differently"):
        prune(gated)
    assert all(torch.equal(v, state[k]) for k, v in gated.state_dict().items())


def test_without_verification_the_report_says_so():
    _, report = prune(closed(three(), X), verify=False)
    assert report.difference is None
    assert "not verified" in str(report)
    _, report = prune(closed(three(), X))
    assert report.difference is not None
    assert "not verified" not in str(report)


def test_differences_are_parts_of_the_largest_output():
    a, b = [torch.tensor([4.0, 0.0])], [torch.tensor([4.0, 1.0])]
    assert difference(a, b) == 0.25
    assert difference(a, a) == 0
    assert difference(a, [torch.zeros(3)]) == float("inf")
    assert difference(a, [torch.tensor([float("nan"), 0.0])]) == float("inf")
    assert difference([], []) == 0


def test_the_same_infinity_and_no_number_twice_are_no_difference():
    odd = torch.tensor([float("inf"), float("-inf"), float("nan"), 2.0])
    assert difference([odd], [odd.clone()]) == 0
    assert (
        difference([odd], [torch.tensor([float("inf"), float("-inf"), float("nan"), 1.0])]) == 0.5
    )
    assert difference([odd], [-odd]) == float("inf")


def test_answers_are_those_in_evaluation_and_leave_the_model_alone():
    model = nn.Sequential(three(), nn.Dropout(0.5)).train()
    (first,), (second,) = (answers(model, X, torch.float64) for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert next(model.parameters()).dtype == torch.float32


def test_a_float32_model_with_means_other_than_one_is_cut_and_verified_in_its_own_type():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 3)
    )
    example = torch.randn(4, 8)
    gated = vibnet.attach(model, example)
    close_units(gated, 0.5, 0)
    small, report = vibnet.prune(gated)
    assert report.difference < 1e-10
    assert report.weights[1] < report.weights[0]
    assert {p.dtype for p in small.parameters()} == {torch.float32}
    torch.testing.assert_close(small(example), gated.eval()(example), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_is_cut_and_verified(dtype):
    model = three().to(dtype)
    gated = attach(model, X.to(dtype))
    close_units(gated, 0.5, 0)
    small, report = prune(gated)
    assert report.difference < 1e-10
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert report.weights[1] < report.weights[0]


def test_a_model_too_large_for_float64_is_compared_in_its_own_type(monkeypatch):
    monkeypatch.setattr(verify, "LARGEST_DOUBLE", 0)
    gated = attach(three(), X)
    close_units(gated, 0.5, 0)
    _, report = prune(gated)
    assert 0 <= report.difference < 1e-5
    wrong_after_the_cut(monkeypatch, 1e-3)
    with pytest.raises(VerificationError, match=r"outputs moved by .* of their scale"):
        prune(gated)


def wrong_after_the_cut(monkeypatch, step):
    """The small model's last bias is off by this."""
    right = pruning.smaller

    def wrong(*args):
        small, tensors = right(*args)
        with torch.no_grad():
            list(small.parameters())[-1][-1] += step
        return small, tensors

    monkeypatch.setattr(pruning, "smaller", wrong)


def wrong_in_float64(monkeypatch, step):
    """The last bias of the float64 copy that is cut is off by this."""
    right = verify.cut

    def wrong(model, *args):
        out = right(model, *args)
        with torch.no_grad():
            list(model.parameters())[-1][-1] += step
        return out

    monkeypatch.setattr(verify, "cut", wrong)


def test_an_answer_that_is_no_number_is_refused(monkeypatch):
    wrong_after_the_cut(monkeypatch, float("nan"))
    with pytest.raises(VerificationError, match="moved by inf"):
        prune(closed(three(), X))


class Masked(nn.Module):
    """Logits of which one is masked, by filling or by adding."""

    def __init__(self, value, fill):
        super().__init__()
        self.body, self.value, self.fill = three(), value, fill

    def forward(self, x):
        y = self.body(x)
        at = torch.tensor([True, False])
        if self.fill:
            return y.masked_fill(at, self.value)
        return y + torch.where(at, self.value, 0.0)


@pytest.mark.parametrize("value", [-1e9, torch.finfo(torch.float32).min, -float("inf")])
@pytest.mark.parametrize("fill", [True, False])
def test_masked_answers_do_not_hide_the_others(monkeypatch, value, fill):
    gated = attach(Masked(value, fill), X)
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-10
    wrong_in_float64(monkeypatch, 1e-8)
    with pytest.raises(VerificationError, match="answers differently"):
        prune(gated)


@pytest.mark.parametrize("step", [1e-11, 1e-8, 1e-5])
def test_what_rounding_does_not_explain_is_refused(monkeypatch, step):
    gated = attach(three(), X)
    close_units(gated, 0.5, 0)
    wrong_in_float64(monkeypatch, step)
    with pytest.raises(VerificationError, match="rounding explains"):
        prune(gated)


class Upcast(nn.Module):
    """Computes in float32 inside, whatever the type outside."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 40), nn.Linear(40, 3)

    def forward(self, x):
        h = self.a(x).relu()
        y = h.float() / (h.float().square().mean(0, keepdim=True) + 1).sqrt()
        return self.b(y.to(x.dtype))


def test_a_model_that_rounds_to_float32_inside_is_verified():
    torch.manual_seed(0)
    gated = attach(Upcast(), X)
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-5


def test_answers_that_are_the_same_for_every_input_verify_nothing():
    model = three()
    nn.init.zeros_(model[4].weight)
    gated = attach(model, X)
    close_units(gated, 0.5, 0)
    small, report = prune(gated)
    assert report.difference is None
    assert "not verified" in str(report)
    assert sum(p.numel() for p in small.parameters()) == report.weights[1]


def test_an_example_of_zeros_is_not_all_that_is_compared(monkeypatch):
    class Gain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(6, 2, bias=False)

        def forward(self, x):
            return self.b(self.a(x))

    gated = attach(Gain(), torch.zeros(3, 4))
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-10
    right = verify.cut
    monkeypatch.setattr(verify, "cut", lambda m, *a: (right(m, *a), m.b.weight.data.mul_(1.001)))
    with pytest.raises(VerificationError, match="answers differently"):
        prune(gated)


def test_other_inputs_have_the_same_numbers():
    x, constant = torch.arange(12.0).reshape(3, 4), torch.ones(2, 3)
    flags, one, numbers = torch.tensor([True, False]), torch.tensor(3.0), torch.arange(5)
    found = shuffled({"x": x, "c": constant, "f": flags, "one": one, "n": numbers, "k": 3})
    assert sorted(found["x"].flatten().tolist()) == x.flatten().tolist()
    assert not torch.equal(found["x"], x)
    assert sorted(found["n"].tolist()) == [0, 1, 2, 3, 4]
    assert len(found["c"].unique()) == 6
    assert found["f"] is flags
    assert found["one"] is one
    assert found["k"] == 3
    numbers, _ = shuffled((torch.full((30,), 4), one))
    assert set(numbers.tolist()) <= {0, 1, 2, 3, 4, 5}
    assert len(numbers.unique()) > 1
    assert shuffled((flags, one)) is None


def test_a_model_that_takes_no_other_input_is_compared_on_the_example():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = three()

        def forward(self, x):
            if not torch.equal(x.detach().float(), X.to(x.device)):
                raise ValueError("only the one")
            return self.body(x)

    inputs, exact, noise = reference(Picky(), X, torch.float64)
    assert len(inputs) == len(exact) == len(noise) == 1


def test_a_forward_that_writes_into_its_input_leaves_the_callers_alone():
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = three()

        def forward(self, x):
            return self.body(x.add_(1))

    x = X.double()
    before = x.clone()
    gated = attach(Writes().double(), x)
    close_units(gated, 0.5, 0)
    assert prune(gated, example=x)[1].difference < 1e-10
    assert torch.equal(x, before)


@dataclasses.dataclass
class Answer:
    logits: torch.Tensor


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = three()

    def forward(self, x):
        return Answer(self.body(x))


def test_answers_in_dataclasses_are_compared(monkeypatch):
    gated = attach(Wrapped(), X)
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-10
    wrong_in_float64(monkeypatch, 1e-8)
    with pytest.raises(VerificationError, match="answers differently"):
        prune(gated)


class Counting(nn.Module):
    """Its answers drift from call to call."""

    def __init__(self):
        super().__init__()
        self.body, self.calls = three(), 0

    def forward(self, x):
        self.calls += 1
        return self.body(x) * (1 + 0.1 * self.calls)


def test_state_that_a_model_keeps_is_no_rounding(monkeypatch):
    gated = attach(Counting(), X)
    close_units(gated, 0.5, 0)
    assert prune(gated)[1].difference < 1e-10
    wrong_in_float64(monkeypatch, 1e-8)
    with pytest.raises(VerificationError, match="answers differently"):
        prune(gated)


class Single(nn.Linear):
    """Reads in float32 whatever its weights are in."""

    def forward(self, x):
        weight, bias = self.weight.float(), self.bias.float()
        return nn.functional.linear(x.float(), weight, bias).to(self.weight.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixed", [False, True])
def test_readers_that_cast_inside_and_models_of_two_types_are_verified(dtype, mixed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), Single(40, 3)).to(dtype)
    example = X.to(dtype)
    if mixed:
        model[0], example = model[0].float(), X
    gated = attach(model, example)
    close_units(gated, 0.5, 0)
    small, report = prune(gated)
    assert report.weights[1] < report.weights[0]
    assert {p.dtype for p in small[2].parameters()} == {dtype}


class Exp(nn.Module):
    def forward(self, x):
        return x.exp()


def test_zero_times_infinity_is_no_number_and_is_refused():
    model = nn.Sequential(nn.Linear(3, 4), Exp(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[0].bias[1] = 1e4  # its exponential overflows
    gated = attach(model, torch.randn(3, 3).double()).eval()
    with torch.no_grad():
        gated.gate("0").mu[1] = 1e-6
    with pytest.raises(VerificationError):
        prune(gated)
    small, report = prune(gated, verify=False)
    assert small[0].out_features == 3
    assert "not verified" in str(report)


class OwnType(nn.Module):
    """A forward that makes tensors of single precision."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        start = torch.zeros(1, len(x), 5, dtype=torch.float32)
        return self.c(self.b(self.a(x), (start, start))[0])


def test_a_model_that_does_not_run_in_double_precision_is_verified_in_its_own():
    torch.manual_seed(0)
    gated = vibnet.attach(OwnType(), torch.randn(3, 5, 4))
    gated.gate("a").log_var.data[:3] = 5.0
    small, report = vibnet.prune(gated.eval())
    assert small.a.out_features == 5
    assert report.difference < 1e-5


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_a_small_model_that_does_not_run_is_refused_by_name(monkeypatch, kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    gated = vibnet.attach(model, torch.randn(3, 4))
    gated.gate("0").log_var.data[:3] = 5.0
    forward = nn.Linear.forward

    def fails(layer, x):
        if layer.out_features == 5 and x.dtype == kind:
            raise ValueError("five is too few")
        return forward(layer, x)

    monkeypatch.setattr(nn.Linear, "forward", fails)
    with pytest.raises(VerificationError, match=r"does not run: five is too few \(at "):
        vibnet.prune(gated.eval())

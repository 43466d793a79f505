import functools

import pytest
import torch
from laws import close_units
from torch.optim import SGD, Adagrad, Adam, AdamW, RMSprop
from training import X, backward, case, gated_mlp, same, snapshot, step

from vibnet import parameter_groups, penalty
from vibnet.errors import ConfigError
from vibnet.train.shrink import shrink

OPTIMIZERS = {
    "sgd": functools.partial(SGD, momentum=0.9),
    "nesterov": functools.partial(SGD, momentum=0.9, nesterov=True, fused=True),
    "adam": functools.partial(Adam, foreach=False),
    "adam fused": functools.partial(Adam, fused=True),
    "adamw": AdamW,
    "adamw amsgrad": functools.partial(AdamW, amsgrad=True, fused=True),
    "rmsprop": functools.partial(RMSprop, momentum=0.5, centered=True),
    "adagrad": Adagrad,
}
every_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


@every_optimizer
def test_the_state_of_an_optimiser_is_cut_like_its_parameter(kind):
    gated = gated_mlp()
    optimizer = OPTIMIZERS[kind](parameter_groups(gated, 1e-2, 1e-2, 0.01))
    step(gated, optimizer)
    numbers = {id(p): dict(optimizer.state[p]) for p in gated.parameters()}
    with torch.no_grad():  # moments that say of every number to which parameter it belongs
        for p in gated.parameters():
            for k, (key, value) in enumerate(numbers[id(p)].items()):
                if key != "step":
                    value.copy_(p * (k + 2))
    groups = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    steps = {id(p): float(s["step"]) for p, s in optimizer.state.items() if "step" in s}
    assert shrink(gated, optimizer)
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == groups
    kept = 0
    for p in gated.parameters():
        for k, (key, value) in enumerate(optimizer.state[p].items()):
            if key == "step":
                assert float(value) == steps[id(p)] == 1
            else:
                assert torch.equal(value, p.detach() * (k + 2)), key
                kept += 1
    assert kept >= len(list(gated.parameters()))


@every_optimizer
def test_training_goes_on_with_the_same_optimiser_scheduler_and_scaler(kind):
    gated = gated_mlp()
    optimizer = OPTIMIZERS[kind](parameter_groups(gated, 1e-2, 1e-2))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for turn in range(4):
        gated.train().zero_grad()
        scaler.scale(gated(X).square().mean() + penalty(gated, 1e-2)).backward()
        before = [p.detach().clone() for p in gated.parameters()]
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        assert all(
            (p != b).any()
            for p, b in zip(gated.parameters(), before, strict=True)
            if p.grad.abs().max() > 1e-8
        )
        assert [g["lr"] for g in optimizer.param_groups] == [1e-2 * 0.5 ** (turn + 1)] * 2
        if turn in (0, 1):
            close_units(gated, 0.4, turn)
            assert shrink(gated, optimizer)
        restored = OPTIMIZERS[kind](parameter_groups(gated, 1e-2, 1e-2))
        restored.load_state_dict(optimizer.state_dict())
        assert same(restored.state_dict()["state"], optimizer.state_dict()["state"])


def test_the_matrix_momentum_of_muon_is_cut_and_goes_on():
    gated = gated_mlp()
    matrices = [p for p in gated.parameters() if p.ndim == 2]
    others = [p for p in gated.parameters() if p.ndim != 2]
    muon, adam = torch.optim.Muon(matrices, lr=1e-2), Adam(others, lr=1e-2)

    def train():
        gated.train().zero_grad()
        (gated(X).square().mean() + penalty(gated, 1e-2)).backward()
        muon.step()
        adam.step()

    train()
    for p in matrices:
        muon.state[p]["momentum_buffer"].copy_(2 * p.detach())
    before = [p.shape for p in matrices]
    close_units(gated, 0.4, 0)
    dead = ~gated.kept()
    assert shrink(gated, [muon, adam], dead)
    assert [p.shape for p in matrices] != before
    for p in matrices:
        assert torch.equal(muon.state[p]["momentum_buffer"], 2 * p.detach())
    held = [p.detach().clone() for p in matrices]
    train()
    assert all((p != h).any() for p, h in zip(matrices, held, strict=True))


def test_a_loss_that_somebody_still_holds_does_not_stop_training():
    gated = gated_mlp()
    optimizer = Adam(gated.parameters())
    held = backward(gated.train(), (X,))
    optimizer.step()
    assert shrink(gated, optimizer)
    step(gated, optimizer)
    assert held.grad_fn is not None


def test_gradients_are_dropped_whole():
    gated = gated_mlp()
    backward(gated.train(), (X,))
    assert shrink(gated)
    assert all(p.grad is None for p in gated.parameters())


@pytest.mark.parametrize("which", ["gates", "weights"])
def test_an_optimiser_of_some_of_the_parameters_stays_whole(which):
    gated = gated_mlp()
    part = gated.gates if which == "gates" else gated.model
    optimizer = Adam(part.parameters())
    step(gated, optimizer)
    assert shrink(gated, optimizer)
    assert len(optimizer.state_dict()["state"]) == len(list(part.parameters()))
    step(gated, optimizer)


def test_an_optimiser_that_has_not_stepped_gets_no_state():
    gated = gated_mlp()
    optimizer = Adam(gated.parameters())
    assert shrink(gated, optimizer)
    assert not optimizer.state
    step(gated, optimizer)


def test_frozen_and_unused_parameters_are_cut_and_stay_as_they_were():
    gated = gated_mlp()
    frozen, unused = gated.model[0].weight, gated.model[4].bias
    frozen.requires_grad_(False)
    optimizer = Adam([p for p in gated.parameters() if p is not frozen])
    backward(gated.train(), (X,))
    unused.grad = None
    optimizer.step()
    before = frozen.clone()
    assert shrink(gated, optimizer)
    kept = next(s for s in gated.sites if s.name == "0").positions
    assert gated.model[0].weight is frozen
    assert not frozen.requires_grad
    assert torch.equal(frozen, before[kept])
    assert unused not in optimizer.state
    assert len(unused) == len(gated.gate("4").mu) < 12


def test_tied_weights_are_cut_once_and_stay_tied():
    gated, _, example = case("tied_parameter")
    optimizer = Adam(gated.parameters())
    step(gated, optimizer, example)

    def ties():
        state = [v for _, v in gated.named_parameters(remove_duplicate=False)]
        return [[a is b for a in state] for b in state]

    before = ties()
    assert any(sum(row) > 1 for row in before)
    close_units(gated, 0.5, 0)
    assert shrink(gated, optimizer)
    assert ties() == before
    for p in gated.parameters():
        assert optimizer.state[p]["exp_avg"].shape == p.shape


class Odd(torch.optim.Optimizer):
    """A state of another shape than the parameter's: a row, a list of factors, or both."""

    def __init__(self, parameters, kind):
        super().__init__(parameters, {})
        self.kind = kind

    def step(self):
        for p in self.param_groups[0]["params"]:
            row, column = p.detach().reshape(len(p), -1).mean(1), p.detach().reshape(len(p), -1)[0]
            if p.ndim == 1:
                continue
            if self.kind == "list":
                self.state[p]["factors"] = [row, {"column": column}]
            else:
                self.state[p].update(step=torch.tensor(1.0), row=row, column=column)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("row", r"'row' of 0.weight has shape \(16,\), the parameter \(16, 6\)"),
        ("list", r"'factors' of 0.weight has shape \(16,\)"),
    ],
)
def test_an_optimiser_with_a_state_of_other_shapes_is_refused_and_nothing_changes(kind, message):
    gated = gated_mlp()
    optimizer = Odd(gated.parameters(), kind)
    backward(gated.train(), (X,))
    optimizer.step()
    before, graph = snapshot(gated, optimizer), gated.graph
    with pytest.raises(ConfigError, match=message):
        shrink(gated, optimizer)
    assert same(snapshot(gated, optimizer), before)
    assert gated.graph is graph


@pytest.mark.parametrize("given", ["adam", 5, [None], [Adam]])
def test_what_is_no_optimiser_is_refused_before_anything_is_cut(given):
    gated = gated_mlp()
    close_units(gated, 0.4, 0)
    before = snapshot(gated)
    with pytest.raises(ConfigError, match="must be a torch optimiser, or a list of them, got"):
        shrink(gated, given)
    assert same(snapshot(gated), before)

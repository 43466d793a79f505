import pytest
import torch

from vibnet import attach, information
from vibnet.analysis import course as module
from vibnet.analysis.course import (
    activations,
    course,
    gate_epochs,
    held_at_zero,
    prepared,
    quantities,
    reader_columns,
)
from vibnet.config import Settings

SHORT = Settings(dense_epochs=1, gate_epochs=3, gamma=1e-3)


@pytest.fixture(scope="module")
def start():
    made, model = prepared(0, SHORT)
    return made, model, attach(model, made.data.example)


def test_activations_are_those_in_front_of_the_gate(start):
    made, model, gated = start
    x = torch.cat([x for x, _ in made.data.validation()])
    with torch.no_grad():
        for gate in gated.gates.values():
            gate.mu.fill_(0.0)
            gate.log_var.fill_(-80.0)  # closed, without noise: nothing passes
        with activations(gated) as found:
            gated.train()(x)
    first = torch.relu(model[1](x.flatten(1)))
    assert torch.equal(found["1"], first)
    assert torch.allclose(found["3"], torch.relu(model[3].bias).expand(len(x), -1))
    assert not any(place._forward_pre_hooks for place in gated.places)


def f_of_first(model, x):
    return torch.relu(model[1](x.flatten(1)))


def test_quantities_are_those_of_the_formulas(start):
    made, model, _ = start
    gated = attach(model, made.data.example).eval()
    x = torch.cat([x for x, _ in made.data.validation()])
    torch.manual_seed(0)
    found = quantities(gated, x)
    assert not gated.training
    with torch.no_grad():
        second = torch.relu(model[3](f_of_first(model, x)))
    mu, log_var = (c.detach().double() for c in gated.gate("3").columns())
    without_noise = information.unit_information(mu, log_var, second.double()).tolist()
    assert found["3"]["truth"] != without_noise  # what reaches the second layer is noisy
    assert found["3"]["truth"] == pytest.approx(without_noise, abs=0.2)
    f = torch.relu(model[1](x.flatten(1))).detach().double()
    mu, log_var = (c.detach().double() for c in gated.gate("1").columns())
    site = found["1"]
    assert site["rate"] == information.rate(mu, log_var).tolist()
    assert site["truth"] == information.unit_information(mu, log_var, f).tolist()
    bound = information.kl_to_best_prior(mu, log_var, f, delta=module.DELTA)
    assert site["bound"] == bound.tolist()
    assert {len(values) for values in site.values()} == {300}


def test_columns_are_norms_of_what_reads_a_unit(start):
    made, model, _ = start
    gated = attach(model, made.data.example)
    norms = reader_columns(gated)["1"]["norm"]
    weight = model[3].weight.detach()
    expected = [float(weight[:, j].square().sum().sqrt()) for j in range(300)]
    assert norms == pytest.approx(expected, rel=1e-5)


def test_training_with_gates_changes_them_and_keeps_held_columns_at_zero(start):
    made, model, _ = start
    gated = attach(model, made.data.example)
    hold, asked = torch.tensor([3, 5]), []
    real = made.data.train
    made.data.train = lambda epoch: asked.append(epoch) or real(epoch)
    before = gated.gate("1").log_var.detach().clone()
    assert list(gate_epochs(made, gated, 1, hold)) == [0, 1, 2, 3]
    del made.data.train
    assert asked == [1, 2, 3]  # after the dense one
    assert not gated.model[3].weight[:, hold].any()
    assert gated.model[3].weight[:, 0].any()
    moved = gated.gate("1").log_var.detach() - before
    assert float(moved.mean()) > 0.1


def test_units_that_nobody_reads_close_first(monkeypatch):
    made, model = prepared(0, SHORT.replaced(gate_epochs=25))
    monkeypatch.setattr(module, "EPOCHS", (0, 25))
    held = []

    def noted(made, gated, first, hold):
        held.append(hold)
        return gate_epochs(made, gated, first, hold)

    monkeypatch.setattr(module, "gate_epochs", noted)
    body = held_at_zero(made, model, 0)
    norms = torch.linalg.vector_norm(model[3].weight.detach(), dim=0)
    rest = [k for k in range(300) if k not in held[0].tolist()]
    assert float(norms[held[0]].min()) >= float(norms[rest].max())  # those that it weighs most
    first, last = body["rows"]
    assert first["largest_held"] > 1000
    assert last["largest_held"] < 1 < last["largest_other"]
    assert last["others_open"] > 10


def test_the_experiment_is_of_every_seed_and_epoch(monkeypatch):
    monkeypatch.setattr(module, "EPOCHS", (0, 2))
    monkeypatch.setattr(module, "SEEDS", (0, 1))
    real = module.prepared
    monkeypatch.setattr(module, "prepared", lambda seed: real(seed, SHORT.replaced(gate_epochs=2)))
    said = []
    state = torch.get_rng_state()
    body = course(said.append)
    assert len(said) == 2
    assert [(s["seed"], s["epoch"]) for s in body["snapshots"]] == [(0, 0), (0, 2), (1, 0), (1, 2)]
    assert list(body["snapshots"][0]["sites"]) == ["1", "3"]
    assert len(body["columns"]) == len(body["held"]) == 2
    monkeypatch.setattr(module, "SEEDS", (0,))
    again = course(said.append)
    assert again["snapshots"] == body["snapshots"][:2]
    assert state.shape == torch.get_rng_state().shape

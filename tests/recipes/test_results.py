"""What a run writes down of its two networks, where all that can be taken for another differs."""

import dataclasses
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from laws import close_units
from training import FlatConv, Toy, mlp

from vibnet import prune
from vibnet.config import Settings
from vibnet.recipes.run import Job, run
from vibnet.train.loop import fit
from vibnet.train.objective import Objective

FLAT = {"features": ["fc"]}


def surprise(logits, labels):
    """A metric that tells any two networks apart, as counted errors need not."""
    return F.cross_entropy(logits, labels, reduction="none")


class RandomLabels(Toy):
    """Noise with labels at random, in three sets of different sizes."""

    def __init__(self, shape=(6,), classes=3):
        super().__init__(classes=classes)
        random = torch.Generator().manual_seed(1)
        self.x = torch.randn(64, *shape, generator=random)
        self.y = torch.randint(classes, (64,), generator=random)
        self.example = self.x[:2].clone()

    def validation(self):
        return [(self.x[:32], self.y[:32]), (self.x[32:43], self.y[32:43])]

    def test(self):
        return [(self.x[43:], self.y[43:])]


def cut(model, toy, options):
    """A run of no epoch: the model as it is, and the same with units closed and cut."""
    settings = Settings(dense_epochs=0, gate_epochs=0)
    fitted = fit(model, toy, settings=settings, options=options)
    close_units(fitted.gated, 0.4, 0)
    small, report = prune(fitted.gated)
    return dataclasses.replace(fitted, small=small, report=report)


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Runs of a model that cost no training and no timing; the run's JSON and the two networks."""

    def parameters_times_rows(model, _example, rows):
        return rows * sum(p.numel() for p in model.parameters())

    monkeypatch.setitem(run.__globals__, "latency", parameters_times_rows)

    def body(model, toy, options):
        fitted = cut(model.eval(), toy, options)
        monkeypatch.setitem(run.__globals__, "fit", lambda *_, **__: fitted)
        objective = Objective(F.cross_entropy, surprise, "nats")
        given = Job("by-hand", model, toy, Settings(), objective, options)
        return run(given, tmp_path), fitted

    return body


def nats(model, batches):
    """The mean of the objective's metric over all examples, without `validate`."""
    with torch.no_grad():
        return float(torch.cat([surprise(model(x), y) for x, y in batches]).mean())


def test_every_error_is_of_its_own_network_and_set(ran):
    toy = RandomLabels()
    body, fitted = ran(mlp(), toy, {})
    errors = {
        name: {"dense": nats(fitted.dense, batches), "small": nats(fitted.small, batches)}
        for name, batches in (("test", toy.test()), ("validation", toy.validation()))
    }
    values = sorted(e for pair in errors.values() for e in pair.values())
    assert min(b - a for a, b in pairwise(values)) > 1e-3, values
    for name, pair in errors.items():
        assert body[name] == pytest.approx(pair, rel=1e-6)
    assert (body["test_examples"], body["metric"]) == (21, "nats")


@pytest.mark.parametrize(
    ("model", "shape", "classes", "options", "places", "before"),
    [
        (mlp, (6,), 3, {}, {"0": 1, "4": 1}, 16 + 12),
        (mlp, (6,), 3, {"inputs": True}, {"inputs": 1, "0": 1, "4": 1}, 6 + 16 + 12),
        (FlatConv, (1, 3, 3), 2, {}, {"conv": 4, "fc": 1}, 12 + 5),
        (FlatConv, (1, 3, 3), 2, FLAT, {"conv": 4, "fc:features": 1, "fc": 1}, 12 + 12 + 5),
    ],
    ids=["plain", "inputs", "conv", "features"],
)
def test_neurons_are_those_of_what_was_declared(
    model, shape, classes, options, places, before, ran
):
    torch.manual_seed(0)
    body, _ = ran(model(), RandomLabels(shape, classes), options)
    after = {site["name"]: site["after"] for site in body["sites"]}
    assert after.keys() == places.keys()
    left = sum(places[name] * n for name, n in after.items())  # each at so many pixels
    assert left < before
    assert (body["before"]["neurons"], body["after"]["neurons"]) == (before, left)
    assert body["ratios"]["r_N"] == pytest.approx(100 * left / before)


def test_every_latency_is_of_its_own_network_and_batch(ran):
    body, fitted = ran(mlp(), RandomLabels(), {})
    dense, small = (sum(p.numel() for p in m.parameters()) for m in (fitted.dense, fitted.small))
    assert small < dense
    assert body["timing"]["latency_dense"] == {"1": dense, "32": 32 * dense}
    assert body["timing"]["latency_small"] == {"1": small, "32": 32 * small}

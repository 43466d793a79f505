import pytest
import torch
from torch import nn

from vibnet.analysis import depth as module
from vibnet.analysis.depth import deep, depth, one


def test_a_deep_network_has_so_many_hidden_layers():
    model = deep(3)
    assert sum(isinstance(m, nn.Linear) for m in model) == 4
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_with_the_factor_gamma_falls_with_depth(monkeypatch):
    seen = []

    def caught(_model, _data, _objective, settings):
        seen.append(settings.gamma)
        raise StopIteration

    monkeypatch.setattr(module, "fit", caught)
    for layers, factor in ((4, True), (4, False), (8, True)):
        with pytest.raises(StopIteration):
            one(layers, factor, 0)
    assert seen == [2 * module.GAMMA / 4, 2 * module.GAMMA, 2 * module.GAMMA / 8]


def test_the_experiment_has_a_row_for_every_depth_with_and_without(monkeypatch):
    monkeypatch.setattr(module, "DEPTHS", (2,))
    monkeypatch.setattr(module, "SEEDS", (0, 1))
    monkeypatch.setattr(module, "EPOCHS", {"dense_epochs": 3, "gate_epochs": 4})
    said = []
    body = depth(said.append)
    assert [(row["layers"], row["factor"]) for row in body["rows"]] == [(2, True), (2, False)]
    assert len(said) == 2
    for row in body["rows"]:
        assert row["kept"]["n"] == 2
        assert 0 < row["kept"]["mean"] <= 100
        assert row["dense"]["mean"] < 50

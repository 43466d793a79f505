"""Costs follow the paper's rules: its base totals and its published rows, exactly."""

import pytest
import torch
from torch import nn

from vibnet.cost import latency
from vibnet.errors import ConfigError

MNIST = torch.zeros(1, 1, 28, 28)
CIFAR = torch.zeros(1, 3, 32, 32)


def test_latency_is_positive_and_restores_modes_and_threads():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.BatchNorm1d(4))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    threads = torch.get_num_threads()
    found = latency(model, torch.zeros(3, 4), 2, threads=threads + 1, seconds=0.01)
    assert isinstance(found, float)
    assert found > 0
    assert torch.get_num_threads() == threads
    assert [module.training for module in model.modules()] == modes
    assert model[2].num_batches_tracked == 0


def test_latency_repeats_the_first_row_and_restores_modes_after_an_error():
    seen = []

    class Seen(nn.Module):
        def forward(self, x):
            seen.append(x)
            if x.shape[0] == 7:
                raise RuntimeError("seven rows")
            return x

    model = Seen()
    latency(model, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 5, seconds=0.001)
    assert torch.equal(seen[0], torch.tensor([[1.0, 2.0]] * 5))
    with pytest.raises(RuntimeError, match="seven rows"):
        latency(model, torch.zeros(1, 2), 7)
    assert model.training


@pytest.mark.parametrize("setting", [{"batch": 0}, {"threads": 0}, {"seconds": 0}])
def test_a_latency_without_rows_threads_or_time_is_refused(setting):
    with pytest.raises(ConfigError, match="must be positive"):
        latency(nn.Linear(3, 2), torch.zeros(1, 3), **{"batch": 1, **setting})

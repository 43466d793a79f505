import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vibnet import attach
from vibnet.train.average import Average
from vibnet.train.shrink import shrink


def made():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))


def test_it_is_torchs_average_to_the_last_bit():
    model = made()
    ours = Average(model, 0.9)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(5):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert ours.n_averaged == theirs.n_averaged == 5
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_follows_a_model_that_shrinks():
    gated = attach(made(), torch.ones(2, 3))
    average = Average(gated, 0.5)
    average.update_parameters(gated)
    for one in (gated, average.module):
        one.gate("0").log_var.data[:2] = 5.0
        assert shrink(one)
    average.forget()
    with torch.no_grad():
        gated.model[0].weight.fill_(3.0)
        average.module.model[0].weight.fill_(1.0)
    average.update_parameters(gated)
    assert torch.equal(average.module.model[0].weight, torch.full((4, 3), 2.0))


def test_buffers_are_those_of_the_last_step():
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6))
    average = Average(model, 0.9)
    for step in range(3):
        model(torch.randn(4, 3, generator=torch.Generator().manual_seed(step)))
        average.update_parameters(model)
        assert torch.equal(average.module[1].running_mean, model[1].running_mean)
        assert average.module[1].num_batches_tracked == step + 1


def test_types_are_averaged_apart():
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 2).double())
    average = Average(model, 0.5)
    average.update_parameters(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    before = [p.clone() for p in average.module.parameters()]
    average.update_parameters(model)
    for old, new in zip(before, average.module.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.5)

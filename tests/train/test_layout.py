import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from training import SHORT, Toy, told

from vibnet.graph.trial.cut import layout, take
from vibnet.train.layout import LAST, like, put_back, put_channels_last
from vibnet.train.loop import fit

SOFT = dataclasses.replace(SHORT, gamma=5e-3)
SETTINGS = dataclasses.replace(SOFT, channels_last=True)


class Images(Toy):
    """The clouds as images of three channels."""

    def __init__(self):
        super().__init__(size=48)
        self.x = self.x.reshape(-1, 3, 4, 4)
        self.example = self.x[:2].clone()


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 8, 2)
        self.out = nn.Linear(72, 3)
        self.seen = []

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        self.seen.append(layout(x))
        return self.out(torch.relu(self.second(x)).flatten(1))


class GrayImages(Images):
    """The same of one channel, which torch calls contiguous either way."""

    def __init__(self):
        super().__init__()
        self.x = self.x.mean(1, keepdim=True)
        self.example = self.x[:2].clone()


class GrayConvolutions(Convolutions):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 12, 3, padding=1)


KINDS = {"three": (Convolutions, Images), "one": (GrayConvolutions, GrayImages)}


@pytest.fixture(params=KINDS)
def kind(request):
    """A network and its data, of three channels and of one."""
    return KINDS[request.param]


def formats(model):
    return {layout(p) for p in model.parameters()}


def channels(model):
    return model.first.out_channels + model.second.out_channels


def strides(model):
    return {name: p.stride() for name, p in model.named_parameters()}


def test_weights_of_images_and_volumes_are_laid_out_and_put_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(2, 5, 2), nn.Conv1d(2, 3, 2))
    model[0].to(memory_format=torch.channels_last)
    before = {k: (v, v.detach().clone(), v.stride()) for k, v in model.named_parameters()}
    found = put_channels_last(model)
    assert layout(model[0].weight) is torch.channels_last
    assert layout(model[1].weight) is LAST[5]
    put_back(model, found)
    for name, parameter in model.named_parameters():
        own, value, stride = before[name]
        assert parameter is own
        assert torch.equal(parameter, value)
        assert parameter.stride() == stride


def test_a_moment_is_laid_out_as_its_parameter_and_a_number_is_left():
    parameter = torch.zeros(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    moment = torch.randn(4, 3, 2, 2)
    assert like(moment, parameter).stride() == parameter.stride()
    assert torch.equal(like(moment, parameter), moment)
    gray = torch.empty(4, 1, 2, 2, memory_format=torch.channels_last)
    assert like(torch.randn(4, 1, 2, 2), gray).stride() == gray.stride() == (4, 1, 2, 1)
    count = torch.tensor(3.0)
    assert like(count, parameter) is count


def test_a_weight_of_one_channel_is_laid_out_by_its_strides():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv3d(1, 4, 2), nn.Conv2d(4, 4, 1))
    before = strides(model)
    found = put_channels_last(model)
    assert strides(model)["0.weight"] == (9, 1, 3, 1)
    assert strides(model)["1.weight"] == (8, 1, 4, 2, 1)
    assert strides(model)["2.weight"] == (4, 1, 4, 4)
    assert layout(model[0](torch.randn(2, 1, 5, 5))) is torch.channels_last
    put_back(model, found)
    assert strides(model) == before


def test_a_cut_keeps_the_strides_of_what_is_left_with_one_channel():
    last = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    rows, columns, rest = np.arange(4), np.array([1]), np.arange(2)
    for given, wanted in ((last, (4, 1, 2, 1)), (last.contiguous(), (4, 4, 2, 1))):
        left = take(given, [rows, columns, rest, rest])
        assert left.stride() == wanted
        assert torch.equal(left, given[:, 1:2])
        again = take(left, [rows[:2], np.arange(1), rest, rest])
        assert again.stride() == wanted
        assert torch.equal(again, given[:2, 1:2])


def test_training_runs_channels_last_and_hands_out_what_came_in(kind):
    network, images = kind
    model = network()
    fitted = fit(model, images(), None, SETTINGS)
    assert fitted.dense.seen[-1] is torch.channels_last  # while it trained
    assert fitted.gated.model.seen[-1] is torch.channels_last
    for handed_out in (model, fitted.dense, fitted.gated.model, fitted.small):
        assert formats(handed_out) == {torch.contiguous_format}
        assert strides(handed_out)["first.weight"][1] == 9
    assert channels(fitted.small) < 12 + 8
    plain = fit(network(), images(), None, SOFT)
    last, other = fitted.history[0].loss, plain.history[0].loss
    assert last == pytest.approx(other, rel=1e-3)


def test_a_model_that_came_channels_last_stays_so():
    model = Convolutions().to(memory_format=torch.channels_last)
    for settings in (SETTINGS, SOFT):
        fitted = fit(model, Images(), None, settings)
        assert layout(fitted.dense.second.weight) is torch.channels_last
        assert layout(fitted.small.second.weight) is torch.channels_last


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_resumes_to_the_last_bit(tmp_path, optimizer, kind):
    network, images = kind
    rates = {"lr": 0.02, "gate_lr": 0.3, "gamma": 0.1} if optimizer == "sgd" else {}
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, tune_epochs=2, ema=0.5, **rates)
    straight = fit(network(), images(), None, settings)
    assert optimizer == "sgd" or channels(straight.small) < 12 + 8
    for _ in itertools.count():
        part = fit(network(), images(), None, settings, folder=tmp_path, resume=True, seconds=0)
        if part.done:
            break
    assert told(part) == told(straight)

import re

import numpy as np
import pytest
import torch
from networks import NETWORKS
from torch import nn

from vibnet.graph.capture import capture as cap
from vibnet.graph.labels.labeller import Labeller
from vibnet.graph.labels.rules import TABLE
from vibnet.graph.sites.sites import build
from vibnet.graph.trial import probe
from vibnet.graph.trial.replay import Replay


class Net(nn.Module):
    """A convolution, a function, and another convolution that reads it."""

    def __init__(self, function, read=8):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(read, 4, 1)
        self.function = function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def reason_of(function, read=8):
    graph = probe.analyse(Net(function, read), IMAGES)
    return {s.name: s.reason for s in (*graph.sites, *graph.pinned)}["a"]


def heads(x, n):
    return x.view(x.shape[0], n, -1, *x.shape[2:])


SAME_SHAPES = {
    "a roll beside what it rolled": (
        lambda x: x + x.roll(4, 1).relu().flip(1).roll(4, 1),
        r"roll in the model itself \(test_replay\.py:\d+\) gives other units than those predicted",
    ),
    "heads of a width that moves": (
        lambda x: heads(x, x.shape[1] // 2).transpose(1, 2).flatten(1, 2),
        "gives other units|joins units|instead of|fails",
    ),
}


@pytest.mark.parametrize("name", SAME_SHAPES)
def test_a_number_that_keeps_all_shapes_is_found_by_the_labels(name):
    function, why = SAME_SHAPES[name]
    assert re.search(why, reason_of(function))


def test_without_the_replay_such_a_number_would_pass(monkeypatch):
    function, _ = SAME_SHAPES["a roll beside what it rolled"]
    monkeypatch.setattr(Replay, "complaint", lambda *_: ("", -1))
    assert reason_of(function) == ""


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_trial_of_every_construct_has_the_labels_that_were_predicted(name):
    model, example = NETWORKS[name](0)
    traces = cap.capture(model, example)
    engine = Labeller(dict(TABLE))
    engine.add_model(traces[0].model)
    engine.add(traces[0])
    graph = build(engine, traces[:1], model)
    replay = Replay(engine, graph)
    whole = np.ones(graph.total, dtype=np.bool_)
    assert replay.complaint(0, traces[0], traces[0], whole) == ("", -1)


PATHS = {
    "reads the units another way": (
        lambda x: x.softmax(2 if x.shape[1] == 8 else 1),
        r"_softmax in the model itself \(test_replay\.py:\d+\) computes with a number that depends",
    ),
    "joins units that were apart": (
        lambda x: with_itself_or_the_other(*x.chunk(2, 1)),
        r"after a trial cut add in the model itself \(test_replay\.py:\d+\) joins units that were",
    ),
    "joins them through another tensor": (
        lambda x: with_itself_or_what_the_other_met(*x.chunk(2, 1)),
        "after a trial cut the model joins units that were apart",
    ),
}


def with_itself_or_the_other(a, b):
    return torch.cat([a + (a if len(a[0]) == 4 else b), b], 1)


def with_itself_or_what_the_other_met(a, b):
    zeros = a.new_zeros(a.shape)
    return torch.cat([a + zeros, b + (b if len(a[0]) == 4 else zeros)], 1)


@pytest.mark.parametrize("name", PATHS)
def test_a_width_that_decides_what_a_call_does_is_found_though_all_shapes_fit(name):
    function, why = PATHS[name]
    assert re.search(why, reason_of(function))

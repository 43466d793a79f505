import copy

import pytest
import torch
from torch import nn

import vibnet
from vibnet.errors import ConfigError
from vibnet.graph.sites.structure import NO_REQUEST, Request, fingerprint
from vibnet.graph.trial.probe import analyse
from vibnet.train.shrink import shrink


def test_a_fingerprint_tells_shapes_names_and_types_but_not_values():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    other = copy.deepcopy(model)
    other[0].weight.data.add_(1)
    assert fingerprint(other) == fingerprint(model)
    assert fingerprint(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))) != fingerprint(model)
    assert fingerprint(copy.deepcopy(model).double()) != fingerprint(model)
    assert fingerprint(nn.ModuleList(model)) != fingerprint(model)
    assert len(fingerprint(model)) == 32


def test_a_request_takes_names_in_lists_and_flags_that_are_flags():
    made = Request.of(["a", "b"], inputs=True, ignore=(), attention=False)
    assert made == Request(("a", "b"), True, (), False)
    assert Request.of((), inputs=False, ignore=()) == NO_REQUEST
    assert Request.of("fc1", inputs=False, ignore=()).features == ("fc1",)
    with pytest.raises(ConfigError, match="inputs must be True or False"):
        Request.of((), inputs=1, ignore=())


def test_positions_are_those_before_the_first_cut():
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    (site,) = analyse(model, x).sites
    assert site.positions.tolist() == [0, 1, 2, 3]
    gated = vibnet.attach(model, x)
    dead = torch.tensor([False, True, False, True]).numpy()
    assert shrink(gated, dead=dead)
    assert gated.sites[0].positions.tolist() == [0, 2]
    assert gated.sites[0].first == 4

import copy

import numpy as np
import pytest
import torch
from laws import close_units
from torch import nn
from torch.optim import SGD, Adam
from training import CASES, IMAGE, X, backward, case, gated_mlp, same, snapshot, step

from vibnet import attach, load, parameter_groups, prune, save
from vibnet.errors import ConfigError, PlanError
from vibnet.surgery.verify import answers, difference
from vibnet.train.shrink import Patience, shrink
from vibnet.zoo import LeNet5Caffe, LeNet300100

every_case = pytest.mark.parametrize("name", CASES)
EXACT = 1e-12  # of the outputs' scale


def outputs(model, example):
    return answers(model, example, torch.float64)


def check(gated, twin, example, before):
    """After a shrink of `gated`, of which `twin` is an old copy: all that must be as it was."""
    assert difference(before, outputs(gated, example)) <= EXACT
    (small, report), (expected, old) = prune(gated), prune(twin)
    assert report.plan == old.plan
    assert report.selected == old.selected
    assert str(small) == str(expected)
    assert same(dict(small.state_dict()), dict(expected.state_dict()))
    return small


@every_case
def test_answers_are_the_same_before_and_after_and_so_is_what_prune_makes(name, tmp_path):
    gated, model, example = case(name)
    twin, before = copy.deepcopy(gated), outputs(gated, example)
    held = {k: id(v) for k, v in gated.named_parameters(remove_duplicate=False)}
    size = sum(p.numel() for p in gated.parameters())
    assert shrink(gated) is (not twin.kept().all())
    assert {k: id(v) for k, v in gated.named_parameters(remove_duplicate=False)} == held
    assert sum(p.numel() for p in gated.parameters()) < size
    assert gated.kept().all()
    small = check(gated, twin, example, before)
    save(small, tmp_path)
    loaded = load(tmp_path, copy.deepcopy(model))
    assert type(loaded) is type(model)
    assert same(outputs(loaded, example), outputs(small, example))
    assert not shrink(gated)


@every_case
def test_a_second_shrink_goes_on_from_the_first(name):
    gated, _, example = case(name, share=0.25)
    shrink(gated)
    twin = copy.deepcopy(gated)
    for g in (gated, twin):
        close_units(g, 0.4, 5)
    before = outputs(gated, example)
    first = {s.name: s.positions.tolist() for s in gated.sites}
    shrink(gated)
    check(gated, twin, example, before)
    for site in gated.sites:
        assert set(site.positions.tolist()) <= set(first[site.name])
        assert len(gated.gate(site.name).mu) == site.size == len(site.positions)


@pytest.mark.parametrize("name", [n for n in CASES if n != "dropout"])  # whose masks have sizes
def test_a_step_after_a_shrink_is_the_step_that_would_have_been(name):
    gated, _, example = case(name)
    optimizer = SGD(parameter_groups(gated, 1e-4, 1e-4, 0.1), momentum=0.9, nesterov=True)
    dead = ~gated.kept()

    def mute():  # no noise; what is dead gives nothing to anybody
        with torch.no_grad():
            for site, gate in gated.all_gates():
                gate.mu[torch.as_tensor(dead[site.units])] = 0.0
                gate.log_var.fill_(-80.0)

    mute()
    step(gated, optimizer, example)
    mute()
    twin, its_optimizer = copy.deepcopy((gated, optimizer))
    assert shrink(gated, optimizer, dead)
    step(gated, optimizer, example)
    step(twin, its_optimizer, example)
    assert shrink(twin, None, dead)
    ours, theirs = dict(gated.named_parameters()), dict(twin.named_parameters())
    for k, value in theirs.items():
        torch.testing.assert_close(ours[k], value, rtol=1e-11, atol=1e-12)
    for k, value in twin.named_buffers():
        torch.testing.assert_close(dict(gated.named_buffers())[k], value, rtol=1e-11, atol=1e-12)


class Pick(nn.Module):
    """Reorders channels by the numbers of a buffer, after a layer that is cut before it is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 0, 7, 1, 6, 2, 5, 4]))

    def forward(self, x):
        return x[:, self.order]


def test_a_buffer_that_was_renumbered_since_is_refused_and_nothing_changes():
    layers = nn.Conv2d(3, 8, 1), nn.ReLU(), Pick(), nn.Conv2d(8, 6, 1), nn.Flatten()
    gated = attach(nn.Sequential(*layers, nn.Linear(24, 2)), torch.randn(2, 3, 2, 2))
    close_units(gated, 0.5, 0)
    gated.model[2].order.copy_(gated.model[2].order.flip(0))
    before = snapshot(gated)
    with pytest.raises(PlanError, match=r"the numbers in 2.order are others"):
        shrink(gated)
    assert same(snapshot(gated), before)


def test_a_data_parallel_wrapper_is_refused_and_nothing_changes(tmp_path):
    import torch.distributed as dist

    gated = gated_mlp()
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrappers = [nn.parallel.DistributedDataParallel(gated), nn.DataParallel(gated)]
    finally:
        dist.destroy_process_group()
    before = snapshot(gated)
    for wrapper in wrappers:
        with pytest.raises(ConfigError, match=f"inside a {type(wrapper).__name__}.*wrap it again"):
            shrink(wrapper)
    assert same(snapshot(gated), before)


def test_with_nothing_dead_nothing_changes():
    gated = gated_mlp(share=0.0)
    optimizer = Adam(gated.parameters())
    step(gated, optimizer)
    backward(gated, (X,))
    before, graph = snapshot(gated, optimizer), gated.graph
    assert shrink(gated, optimizer) is False
    assert shrink(gated, optimizer, np.zeros(gated.graph.total, dtype=bool)) is False
    assert same(snapshot(gated, optimizer), before)
    assert gated.graph is graph


def test_a_layer_reads_all_again_when_the_cut_features_go_with_their_channel():
    gated, _, example = case("flat_conv", share=0.0)
    features = next(s.units for s in gated.sites if s.nested)
    dead = np.zeros(gated.graph.total, dtype=bool)
    dead[features[[0, 1]]] = True
    assert shrink(gated, None, dead)
    assert gated.model.fc.index.tolist() == list(range(2, 12))
    dead = np.zeros(gated.graph.total, dtype=bool)
    dead[gated.graph.sites[0].units[0]] = True
    twin = copy.deepcopy(gated)
    with torch.no_grad():
        twin.gate("conv").mu[0] = 0.0  # its snr is 0: evaluation closes it, and its features
    assert shrink(gated, None, dead)
    assert type(gated.model.fc) is nn.Linear
    assert gated.model.fc.in_features == 8
    assert [s.positions.tolist() for s in gated.sites][:2] == [[1, 2], list(range(4, 12))]
    assert difference(outputs(twin, example), outputs(gated, example)) <= EXACT


def test_units_without_a_gate_never_go():
    gated = gated_mlp(share=0.0, exclude=["4"])
    assert shrink(gated, None, np.ones(gated.graph.total, dtype=bool))
    assert {s.name: s.size for s in gated.graph.sites} == {"0": 1, "4": 12}


@pytest.mark.parametrize("dead", [np.ones(3, dtype=bool), np.ones(28), [True] * 28])
def test_dead_units_are_one_bool_each(dead):
    gated = gated_mlp(share=0.0)
    with pytest.raises(ConfigError, match=r"shrink: dead (must be a numpy array|has shape \(3,\))"):
        shrink(gated, None, dead)


@pytest.mark.parametrize("training", [True, False])
def test_modes_hooks_and_gates_stay(training):
    gated, seen = gated_mlp().train(training), []
    gated.model[1].train(not training)
    gated.model[4].register_forward_hook(lambda *_: seen.append(1) and None)
    names = [k for k, _ in gated.named_modules()]
    modes = {k: m.training for k, m in gated.named_modules()}
    hooks = [(len(m._forward_pre_hooks), len(m._forward_hooks)) for m in gated.modules()]
    assert shrink(gated)
    assert [k for k, _ in gated.named_modules()] == names
    assert {k: m.training for k, m in gated.named_modules()} == modes
    now = [(len(m._forward_pre_hooks), len(m._forward_hooks)) for m in gated.modules()]
    assert now == hooks
    gated(X)
    assert seen == [1]


def test_prices_stay_those_of_the_start():
    gated = attach(LeNet300100(), torch.randn(IMAGE), weights="macs")
    close_units(gated, 0.5, 0)
    before = {s.name: s.weight for s in gated.sites}
    assert shrink(gated)
    assert {s.name: s.weight for s in gated.sites} == before
    assert len(set(before.values())) == 2


@pytest.mark.parametrize("multiple", [1, 4])
def test_constraints_hold_after_a_shrink(multiple):
    gated = attach(LeNet5Caffe(), torch.randn(IMAGE), multiple=multiple)
    close_units(gated, 0.6, 0)
    shrink(gated)
    close_units(gated, 0.5, 1)
    shrink(gated)
    assert all(site.size % multiple == 0 for site in gated.sites)
    close_units(gated, 1.0, 1)
    shrink(gated)
    assert [site.size for site in gated.sites] == [multiple] * 3


def test_patience_counts_epochs_in_a_row_and_forgets_at_a_living_one():
    gated = gated_mlp(share=0.0)
    gate, patience = gated.gate("0"), Patience(3, 2.0)
    ratios = [  # of units 0 to 3, epoch by epoch; dead is below 1/2
        (0.4, 0.4, 0.51, 0.4),
        (0.4, 0.4, 0.49, 0.6),
        (0.4, 0.6, 0.49, 0.4),
        (0.4, 0.4, 0.49, 0.4),
        (9.0, 0.4, 0.49, 0.4),
    ]
    found = []
    for row in ratios:
        with torch.no_grad():
            gate.log_var.fill_(0.0)
            gate.mu.fill_(3.0)
            gate.mu[:4] = torch.tensor(row).sqrt()
        found.append(np.flatnonzero(patience.dead(gated)).tolist())
    assert found == [[], [], [0], [0, 2], [2, 3]]


def test_patience_follows_what_is_left():
    gated, patience = gated_mlp(share=0.0), Patience(2, 1.0)
    with torch.no_grad():
        gated.gate("0").log_var[[2, 5, 7]] = 9.0
    patience.dead(gated)
    before = {s.name: s.positions.tolist() for s in gated.sites}
    dead = np.zeros(gated.graph.total, dtype=bool)
    dead[[1, 5]] = True
    assert shrink(gated, None, dead)
    patience.follow(before, gated)
    assert patience.counts["0"] == [int(p in (2, 7)) for p in range(16) if p not in (1, 5)]
    assert patience.counts["4"] == [0] * 12


def test_a_gate_in_front_of_picked_features_still_knows_what_it_is_given():
    torch.manual_seed(0)
    gated = attach(LeNet300100(), torch.randn(IMAGE), inputs=True)
    dead = np.zeros(gated.graph.total, dtype=np.bool_)
    site = next(s for s in gated.sites if s.name == "inputs")
    dead[site.units[5:]] = True
    assert shrink(gated, dead=dead)
    assert gated.model.fc1.in_features == 5
    gated(torch.randn(IMAGE))
    with pytest.raises(ConfigError, match=r"made for 784 units in dimension 1 of 2"):
        gated.model.fc1(torch.randn(2, 5))

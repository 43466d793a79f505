import copy
import json

import pytest
import torch
from branching import IMAGE, TOKENS, Mixer, Residual, check, gone
from hf import X, llama, transformers
from laws import close_units, law_one
from liveliness import lively
from torch import nn

import vibnet
from vibnet import attach, prune
from vibnet.errors import ArtefactError, ConfigError, PlanError
from vibnet.graph.sites.branches import empty
from vibnet.layers import Constant
from vibnet.surgery.plan import digest
from vibnet.train.shrink import shrink


@pytest.mark.parametrize("number", [0, 1])
def test_a_block_of_a_residual_network_goes(number):
    name = f"blocks.{number}.conv1"
    gated = gone(Residual(), IMAGE, name)
    assert empty(gated.graph.sites, gated.kept()) == [name]
    small, report = prune(gated)
    assert report.difference < 1e-10
    check(gated, small, IMAGE)
    at = f"blocks.{number}."
    assert set(report.constants) == {at + n for n in ("conv1", "bn1", "conv2")}
    assert report.plan.kept[name] == []
    block = small.blocks[number]
    width = small.head.in_features
    assert sum(p.numel() for p in block.parameters()) == 3 * width  # bias of conv2, and bn2
    assert "constants now, or gone: blocks" in str(report)
    for size in (8, 12):
        x = torch.randn(2, 1, size, size, dtype=torch.float64)
        torch.testing.assert_close(small(x), gated(x))


def test_layers_and_what_feeds_them_go():
    gated = gone(Mixer(), TOKENS, "mlp.up", "tail.0")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    names = {"mlp.up", "mlp.down", "tail.0", "tail.2"}
    assert set(report.constants) == names
    assert all(isinstance(small.get_submodule(name), Constant) for name in names)
    assert small.mlp.down.bias.shape == (6,)
    assert small.mlp.up.bias is None
    assert small.tail[2].bias is None


def test_constants_are_in_the_mode_of_the_model():
    for mode in (True, False):
        gated = gone(Mixer(), TOKENS, "mlp.up").train(mode)
        small, _ = prune(gated)
        assert small.mlp.down.training is mode


def test_shapes_alone_are_cut_on_the_meta_device_too():
    plan = vibnet.plan(Mixer(), TOKENS, remove_branches=True)
    plan.kept["mlp.up"] = []
    _, report = prune(Mixer().to("meta"), plan, TOKENS.to("meta"), verify=False)
    assert set(report.constants) == {"mlp.up", "mlp.down"}


class Written(nn.Module):
    """The outputs are written through slices, and added to what only has the shape of the input."""

    def __init__(self, way):
        super().__init__()
        self.up, self.down, self.way = nn.Linear(4, 6), nn.Linear(6, 2), way

    def forward(self, x):
        y = self.down(self.up(x).relu())
        if self.way == "like":
            return torch.zeros_like(x[:, :2]) + y
        out = x.new_zeros(len(x), 4)
        out[:, :2] = y
        return out


@pytest.mark.parametrize("way", ["like", "slice"])
def test_a_network_does_not_become_a_constant(way):
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    gated = gone(Written(way), x, "up")
    assert empty(gated.graph.sites, gated.kept()) == []


class Scaled(Mixer):
    """Branches that depend on lengths, counts and flags beside what they read."""

    def forward(self, x, scale=1.0, mask=None):
        x = self.stem(x)
        out = self.mlp(self.norm(x))[0] * scale / x.shape[1] * float((x > 0).sum())
        return self.head(x + (out if mask is None else out * mask))


def test_other_lengths_numbers_and_flags_than_the_examples():
    gated = gone(Scaled(), TOKENS, "mlp.up")
    small, report = prune(gated)
    assert "mlp.down" in report.constants
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    torch.testing.assert_close(small(x), gated(x))
    torch.testing.assert_close(small(x, 0.5), gated(x, 0.5))
    mask = torch.zeros(2, 9, 1, dtype=torch.float64)
    torch.testing.assert_close(small(x, 1.0, mask), gated(x, 1.0, mask))


def test_a_bias_learns_as_it_did():
    model = Mixer()
    model.mlp.up.requires_grad_(False)
    small, _ = prune(gone(model, TOKENS, "mlp.up"))
    assert small.mlp.down.bias.requires_grad
    model.mlp.down.requires_grad_(False)
    small, _ = prune(gone(model, TOKENS, "mlp.up"))
    assert not small.mlp.down.bias.requires_grad


def test_evaluation_closes_the_branch_and_training_reopens_it():
    gated = gone(Mixer(), TOKENS, "mlp.up")
    outputs = gated(TOKENS.double())
    gated.gate("mlp.up").mu.data.mul_(2)
    assert torch.equal(gated(TOKENS.double()), outputs)
    gated.gate("mlp.up").log_var.data.fill_(-9.0)
    assert not torch.equal(gated(TOKENS.double()), outputs)
    assert empty(gated.graph.sites, gated.kept()) == []


def test_one_unit_stays_where_nobody_asked():
    model = Mixer()
    lively(model, TOKENS, 0)
    gated = attach(model, TOKENS.double())
    gated.gate("mlp.up").log_var.data.fill_(5.0)
    small, report = prune(gated)
    assert small.mlp.up.out_features == 1
    assert not report.constants


def test_shrink_leaves_one_dead_unit_and_prune_takes_it():
    gated = gone(Mixer(), TOKENS, "mlp.up")
    x = TOKENS.double()
    before = gated(x)
    assert shrink(gated)
    assert gated.model.mlp.up.out_features == 1
    assert not shrink(gated)
    torch.testing.assert_close(gated(x), before)
    small, report = prune(gated)
    torch.testing.assert_close(small(x), before)
    assert "mlp.down" in report.constants
    assert report.plan.kept["mlp.up"] == []
    assert report.plan.sizes["mlp.up"] == 8


def test_save_and_load(tmp_path):
    gated = gone(Mixer(), TOKENS, "mlp.up", "tail.0")
    small, _ = prune(gated)
    vibnet.save(small, tmp_path)
    again = vibnet.load(tmp_path, Mixer().double().eval())
    assert torch.equal(again(TOKENS.double()), small(TOKENS.double()))
    assert again.state_dict().keys() == small.state_dict().keys()


def test_load_refuses_constants_that_do_not_fit(tmp_path):
    small, report = prune(gone(Mixer(), TOKENS, "mlp.up"))
    for change in ({"nobody": report.constants["mlp.down"]}, {"mlp.down": {"width": 3}}):
        vibnet.save(small, tmp_path)
        path = tmp_path / "plan.json"
        body = json.loads(path.read_text())
        body["constants"] = change
        del body["digest"]
        body["digest"] = digest(body)
        path.write_text(json.dumps(body))
        model = Mixer().double()
        state = copy.deepcopy(model.state_dict())
        with pytest.raises(ArtefactError, match="load:"):
            vibnet.load(tmp_path, model)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_plans_by_hand():
    model = Mixer()
    lively(model, TOKENS, 0)
    x = TOKENS.double()
    plan = vibnet.plan(model, x, remove_branches=True)
    assert plan.remove_branches
    again = vibnet.Plan.from_json(plan.to_json())
    assert again.request.branches
    plan.kept["mlp.up"] = []
    small, report = prune(model, plan, x)
    whole = copy.deepcopy(model)
    with torch.no_grad():
        whole.mlp.down.weight.zero_()
    torch.testing.assert_close(small(x), whole.eval()(x))
    assert "mlp.down" in report.constants
    without = vibnet.plan(model, x)
    without.kept["mlp.up"] = []
    with pytest.raises(PlanError, match="or make the plan with remove_branches=True"):
        prune(model, without, x)


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        self.right = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, x):
        return self.left(x) + self.right(x)


def test_a_plan_may_not_make_the_output_a_constant():
    x = torch.ones(2, 4)
    plan = vibnet.plan(Parallel(), x, remove_branches=True)
    plan.kept.update({"left.0": [], "right.0": []})
    with pytest.raises(PlanError, match="an output does not depend on the input any more"):
        prune(Parallel(), plan, x)


def test_a_plan_may_not_empty_what_is_no_branch():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    plan = vibnet.plan(model, torch.ones(2, 4), remove_branches=True)
    plan.kept["0"] = []
    with pytest.raises(PlanError, match=r"keeps no unit of 0. Keep at least one\.$"):
        prune(model, plan, torch.ones(2, 4))


def test_files_are_not_cut_by_whole_branches(tmp_path):
    x = torch.ones(2, 4)
    model = Parallel()
    plan = vibnet.plan(model, x, remove_branches=True)
    plan.kept["left.0"] = []
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(PlanError, match="Whole branches go only from a model in memory"):
        vibnet.prune_files(model, plan, x, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_law_one_holds_with_branches_asked_for():
    assert law_one(Residual(), IMAGE, remove_branches=True) is not None


def test_branches_go_beside_cuts_that_move_outputs():
    lively(model := Mixer(), TOKENS, 0)
    gated = attach(model, TOKENS.double(), remove_branches=True, allow_inexact=True)
    close_units(gated, 0.4, 0)
    gated.gate("tail.0").log_var.data.fill_(5.0)
    gated.eval()
    small, report = prune(gated)
    assert small.stem.out_features < 6
    assert report.difference < 1e-10
    assert report.moved > 1e-6
    assert report.constants["tail.2"]["width"] == small.stem.out_features


def test_the_flag_is_a_flag():
    with pytest.raises(ConfigError, match="remove_branches"):
        attach(Mixer(), TOKENS, remove_branches="yes")


def test_small_models_with_constants_export(tmp_path):
    from vibnet.export import to_onnx

    small, _ = prune(gone(Residual(), IMAGE, "blocks.1.conv1"))
    assert to_onnx(small.float(), IMAGE, tmp_path / "m.onnx").difference < 1e-4


def test_from_pretrained_does_not_make_layers_anew_that_went(tmp_path):
    hf = transformers()
    model = llama()
    example = {"input_ids": X}
    gated = attach(model, example, remove_branches=True)
    small, _ = prune(_closed(gated, "model.layers.0.mlp.gate_proj"))
    vibnet.save(prune(attach(model, example).eval())[0], tmp_path)  # leaves a config.json
    vibnet.save(small, tmp_path)
    with pytest.raises((OSError, ValueError), match=r"config\.json"):
        hf.AutoModelForCausalLM.from_pretrained(tmp_path)
    again = vibnet.load(tmp_path)
    assert torch.equal(again(**example).logits, small(**example).logits)


def _closed(gated, *names):
    for name in names:
        gated.gate(name).log_var.data.fill_(5.0)
    return gated.eval()


class Longest(nn.Module):
    """A branch of three layers, the middle of which closes."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 5), nn.Linear(5, 6)

    def forward(self, x):
        x = self.stem(x)
        return self.head(x + self.c(self.b(self.a(x).relu()).relu()))


def test_what_only_dead_units_read_goes_too_and_the_rest_is_cut_again():
    gated = gone(Longest(), TOKENS, "b")
    kept = gated.kept()
    assert set(empty(gated.graph.sites, kept)) == {"a", "b"}
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"a", "b", "c"}
    assert set(attach(small, TOKENS.double()).gates) == {"stem"}


class Streamed(nn.Module):
    """A stream under root-mean-square norms, with one branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6, bias=False), nn.Linear(6, 2)
        self.norm, self.last = nn.RMSNorm(6, eps=1e-6), nn.RMSNorm(6, eps=1e-6)
        self.up, self.down = nn.Linear(6, 5, bias=False), nn.Linear(5, 6, bias=False)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.last(x + self.down(self.up(self.norm(x)).relu())))


def test_a_stream_is_cut_again_after_a_branch_went():
    small, report = prune(gone(Streamed(), TOKENS, "up"))
    assert report.constants
    again = gone(small, TOKENS)
    assert set(again.gates) == {"stem"}
    smaller, report = prune(again)
    assert smaller.head.in_features < small.head.in_features
    assert report.difference < 1e-10
    check(again, smaller, TOKENS)


class Fused(nn.Module):
    """A gated unit from one projection; `groups` of a convolution bind its units to each other."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.up, self.down = nn.Linear(6, 14), nn.Linear(7, 6)

    def forward(self, x):
        x = self.stem(x)
        gate, value = self.up(x).chunk(2, -1)
        return self.head(x + self.down(nn.functional.silu(gate) * value))


def test_parts_of_one_projection_that_hold_the_same_units_go_whole():
    gated = gone(Fused(), TOKENS, "up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"up", "down"}
    cut = vibnet.plan(gated)
    by_hand, again = prune(Fused().double(), cut, TOKENS.double())
    assert set(again.constants) == {"up", "down"}
    assert by_hand.head.in_features == small.head.in_features


class Divided(nn.Module):
    """Units in two stated parts, each with a reader of its own, of which one is divided again."""

    def __init__(self, way):
        super().__init__()
        self.sizes, self.way = [4, 2], way
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.up, self.left, self.right = nn.Linear(6, 6), nn.Linear(4, 6), nn.Linear(2, 6)

    def forward(self, x):
        x = self.stem(x)
        left, right = self.up(x).relu().split(self.sizes, -1)
        if self.way == "again":
            a, b = torch.cat([left, left], -1).chunk(2, -1)
            left = a * b
        return self.head(x + self.left(left) + self.right(right))


@pytest.mark.parametrize("way", ["once", "again"])
def test_parts_that_each_keep_a_unit_do_not_go_whole(way):
    gated = gone(Divided(way), TOKENS, "up")
    assert "up" not in gated.graph.branches.readers
    small, _ = prune(gated)
    check(gated, small, TOKENS)
    assert min(small.sizes) >= 1

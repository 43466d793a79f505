import copy
import json
from dataclasses import replace
from types import MethodType

import pytest
import torch
from hf import X, llama, transformers
from laws import close_units, law_one
from liveliness import lively
from torch import nn

import vibnet
from vibnet import attach, prune
from vibnet.errors import ArtefactError, ConfigError, PlanError, VerificationError
from vibnet.graph.capture.capture import capture
from vibnet.graph.sites.branches import empty
from vibnet.graph.sites.paths import paths
from vibnet.layers import Constant
from vibnet.surgery.plan import digest
from vibnet.surgery.verify import answers, difference
from vibnet.train.shrink import shrink


class Block(nn.Module):
    def __init__(self, width, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(width, 6, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, width, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.skip = nn.AvgPool2d(stride)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.skip(x)
        return self.relu(out)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 5, 3, padding=1)
        self.blocks = nn.ModuleList([Block(5), Block(5, 2)])
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


class Mixer(nn.Module):
    """Branches that are modules: one of them takes keywords and gives a tuple."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.norm = nn.LayerNorm(6)
        self.mlp = Mlp()
        self.tail = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6, bias=False))

    def forward(self, x):
        x = self.stem(x)
        out, nothing = self.mlp(hidden=self.norm(x))
        assert nothing is None
        x = x + out
        return self.head(x + self.tail(x))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, hidden):
        return self.down(self.up(hidden).relu()), None


IMAGE = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


def gone(model, example, *names, **options):
    """A lively gated model with these sites closed, and half of the units of others."""
    lively(model, example, 0)
    gated = attach(model, example.double(), remove_branches=True, **options)
    close_units(gated, 0.4, 0)
    for name in names:
        gated.gate(name).log_var.data.fill_(5.0)
    return gated.eval()


def check(gated, small, example):
    other = torch.randn(example.shape, generator=torch.Generator().manual_seed(1)).double()
    pair = (answers(m, other, torch.float64) for m in (gated, small))
    assert difference(*pair) < 1e-10


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


def test_a_layer_that_somebody_listens_to_stays():
    for hook in ("register_forward_pre_hook", "register_full_backward_hook"):
        model = Mixer()
        getattr(model.mlp.up, hook)(lambda m, *x: None)
        _, report = prune(gone(model, TOKENS, "mlp.up"))
        assert set(report.constants) == {"mlp.down"}


class Asking(Mixer):
    """A model that looks at a layer's own numbers in its forward."""

    def forward(self, x):
        assert self.mlp.down.in_features
        return super().forward(x)


def test_where_the_model_does_not_run_with_constants_one_unit_stays():
    gated = gone(Asking(), TOKENS, "mlp.up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert not report.constants
    assert small.mlp.up.out_features == 1


class Telling(Mixer):
    """A model that tells classes apart in its forward."""

    def forward(self, x):
        return super().forward(x) * (1 if isinstance(self.mlp.down, nn.Linear) else 2)


@pytest.mark.parametrize("verify", [True, False])
def test_where_the_model_answers_otherwise_with_constants_nothing_is_replaced(verify):
    gated = gone(Telling(), TOKENS, "mlp.up")
    small, report = prune(gated, verify=verify)
    check(gated, small, TOKENS)
    assert not report.constants


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


class Typed(Mixer):
    """A model that asks a layer for the type of its weight, as some of transformers do."""

    def forward(self, x):
        return super().forward(x.to(self.mlp.down.weight.dtype))


def test_a_layer_is_replaced_where_its_module_cannot_be():
    gated = gone(Typed(), TOKENS, "mlp.up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"mlp.up", "mlp.down"}


class Worded(nn.Module):
    """A branch whose first convolution states its padding by a word."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 3, padding="same")
        self.down, self.head = nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.down(self.up(x).relu())).mean((2, 3)))


def test_a_layer_whose_shape_is_no_formula_of_numbers_stays():
    gated = gone(Worded(), IMAGE, "up")
    small, report = prune(gated)
    check(gated, small, IMAGE)
    assert set(report.constants) == {"down"}


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


class Elsewhere(Mixer):
    """A norm in front of a branch that is read elsewhere too, where a flag says so."""

    def forward(self, x, more=False):
        x = self.stem(x)
        normed = self.norm(x)
        out = x + self.mlp(normed)[0]
        return self.head(out + normed if more else out)


def test_what_makes_more_than_the_units_that_went_stays():
    gated = gone(Elsewhere(), TOKENS, "mlp.up")
    small, report = prune(gated)
    assert set(report.constants) == {"mlp.up", "mlp.down"}
    torch.testing.assert_close(small(TOKENS.double(), True), gated(TOKENS.double(), True))


def test_stock_modules_that_read_weights_past_a_layer_keep_it():
    model = nn.Sequential(nn.Linear(4, 6), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True))
    gated = attach(model.eval(), TOKENS, remove_branches=True)
    assert "1.linear1" not in gated.graph.branches.readers


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


class Sharing(Mixer):
    """Two branches whose first layer is one, and biases that are one; a module with two names."""

    def __init__(self):
        super().__init__()
        self.other = Mlp()
        self.other.up, self.other.down.bias = self.mlp.up, self.mlp.down.bias
        self.twice = nn.ModuleList([self.mlp, self.mlp])

    def forward(self, x):
        x = self.stem(x)
        for module in (self.twice[0], self.other):
            x = x + module(self.norm(x))[0]
        return self.head(x)


def test_layers_with_several_names_and_biases_of_several_layers(tmp_path):
    gated = gone(Sharing(), TOKENS, "mlp.up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    ups = {f"{name}.up" for name in ("mlp", "other", "twice.0", "twice.1")}
    assert set(report.constants) == ups | {name.replace("up", "down") for name in ups}
    assert small.other.up is small.mlp.up is small.twice[1].up
    assert small.other.down.bias is small.mlp.down.bias
    vibnet.save(small, tmp_path)
    back = vibnet.load(tmp_path, Sharing().double())
    assert back.other.up is back.mlp.up
    assert back.other.down.bias is back.mlp.down.bias
    torch.testing.assert_close(back(TOKENS.double()), small(TOKENS.double()))


class Longer(nn.Conv1d):
    """Pads what it reads to an even length before it convolves."""

    def _conv_forward(self, x, weight, bias):
        return nn.functional.conv1d(nn.functional.pad(x, (0, -x.shape[-1] % 2)), weight, bias, 2)


class Joined(nn.Module):
    def __init__(self, up):
        super().__init__()
        self.stem, self.up = nn.Conv1d(1, 6, 3, padding=1), up
        self.down, self.head = nn.Conv1d(5, 6, 1), nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head(torch.cat([x, self.down(self.up(x).relu())], 2).mean(2))


def test_a_layer_with_a_way_of_its_own_stays():
    signal = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(0))
    patched = nn.Conv1d(6, 5, 2, 2)
    patched.forward = MethodType(lambda m, x: nn.Conv1d.forward(m, x[..., :-2]), patched)
    for up in (Longer(6, 5, 2, 2), patched):
        gated = gone(Joined(up), signal, "up")
        small, report = prune(gated)
        assert set(report.constants) == {"down"}
        for size in (8, 9):
            check(gated, small, torch.empty(2, 1, size))


def test_a_window_that_does_not_fit_is_an_error_still():
    signal = torch.randn(3, 1, 8, generator=torch.Generator().manual_seed(0))
    small, _ = prune(gone(Joined(nn.Conv1d(6, 5, 5)), signal, "up"))
    with pytest.raises(RuntimeError, match="a window of 5 does not fit into 4 positions"):
        small(torch.ones(1, 1, 4, dtype=torch.float64))


def test_a_reader_that_somebody_began_to_listen_to_stays():
    gated, heard = gone(Mixer(), TOKENS, "mlp.up"), []
    gated.model.mlp.down.register_forward_hook(lambda *_: heard.append(1))
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"mlp.up"}
    heard.clear()
    small(TOKENS.double())
    assert heard == [1]


class TypedInTraining(Mixer):
    def forward(self, x):
        return super().forward(x.to(self.mlp.up.weight.dtype) if self.training else x)


def test_a_small_model_trains_where_the_whole_one_did():
    gated = gone(TypedInTraining(), TOKENS, "mlp.up")
    small, report = prune(gated)
    assert set(report.constants) == {"mlp.down"}
    small.train()(TOKENS.double())


def test_constants_have_the_type_that_autocast_wants():
    model = Mixer().eval()
    gated = attach(model, TOKENS, remove_branches=True)
    gated.gate("mlp.up").log_var.data.fill_(5.0)
    small, _ = prune(gated.eval())
    seen = []
    for m in (gated.model, small):
        m.mlp.down.register_forward_hook(lambda *given: seen.append(given[-1].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(small(TOKENS), gated(TOKENS), atol=0.05, rtol=0)
    assert seen == [torch.bfloat16] * 2


class Particular(Mixer):
    """Asks what kind of layer it holds."""

    def forward(self, x):
        if not isinstance(self.mlp.up, nn.Linear):
            raise TypeError("a linear layer is wanted here")
        return super().forward(x)


def test_a_model_that_wants_its_own_layers_keeps_them():
    gated = gone(Particular(), TOKENS, "mlp.up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"mlp.down"}


class Grouped(nn.Module):
    """A branch with a norm of one channel a group, on maps."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 2)
        self.up, self.norm = nn.Conv2d(4, 5, 1), nn.GroupNorm(5, 5)
        self.down = nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.down(self.norm(self.up(x)).relu())).mean((2, 3)))


def test_a_norm_of_groups_has_its_channels_second():
    gated = gone(Grouped(), IMAGE, "up")
    small, report = prune(gated)
    check(gated, small, IMAGE)
    assert report.constants["norm"] == {"width": 1, "dim": 1, "windows": [], "bias": False}
    check(gated, small, torch.empty(2, 1, 5, 12))


def test_a_norm_that_somebody_listens_to_stays():
    model = Grouped()
    model.norm.register_forward_hook(lambda *_: None)
    _, report = prune(gone(model, IMAGE, "up"))
    assert set(report.constants) == {"up", "down"}


def test_constants_are_verified_in_double_precision(monkeypatch):
    model = Mixer().eval()
    gated = attach(model, TOKENS, remove_branches=True)
    gated.gate("mlp.up").log_var.data.fill_(5.0)
    forward = Constant.forward

    def wrong(layer, x):
        return forward(layer, x) + 1e-8 * (x.dtype == torch.float64)

    monkeypatch.setattr(Constant, "forward", wrong)
    with pytest.raises(VerificationError):
        prune(gated.eval())


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


class Masked(nn.Module):
    """Without its only hidden layer, the answers would depend on nothing but which words count."""

    def __init__(self, way):
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(9, 4), nn.Linear(4, 6), nn.Linear(6, 3)
        self.way = way

    def forward(self, ids, mask):
        h = self.down(self.up(self.words(ids)).relu())
        weights = (ids != 0)[..., None] if self.way == "compared" else mask[..., None]
        if self.way == "both":
            weights = weights * (ids != 3)[..., None]
        return (h * weights).sum(1) / weights.sum(1).clamp(min=1)


@pytest.mark.parametrize("way", ["compared", "given", "both"])
def test_a_mask_is_nothing_that_answers_depend_on(way):
    ids = torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]])
    for mask in ((ids > 0).long(), ids > 0):
        gated = attach(Masked(way).eval(), (ids, mask), remove_branches=True)
        assert gated.graph.branches.readers == {}


class TwoInputs(nn.Module):
    """Only the branch reads the second input."""

    def __init__(self):
        super().__init__()
        self.stem, self.up = nn.Linear(4, 6), nn.Linear(4, 5)
        self.down, self.head = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x, y):
        return self.head(self.stem(x) + self.down(self.up(y).relu()))


def test_every_input_that_answers_depended_on_still_counts():
    gated = attach(TwoInputs().eval(), (TOKENS, TOKENS + 1), remove_branches=True)
    assert "up" in gated.gates
    assert gated.graph.branches.readers == {}


class TwoOutputs(Mixer):
    def forward(self, x):
        x = self.stem(x)
        out, _ = self.mlp(hidden=self.norm(x))
        return self.head(x), out


def test_no_output_of_several_may_become_a_constant():
    gated = attach(TwoOutputs().eval(), TOKENS, remove_branches=True)
    assert "mlp.up" not in gated.graph.branches.readers


class Numbered(nn.Module):
    """A second input of whole numbers, one way or another, that only the branch reads."""

    def __init__(self, way):
        super().__init__()
        self.stem, self.up = nn.Linear(4, 6), nn.Linear(5, 8)
        self.down, self.head, self.way = nn.Linear(8, 6), nn.Linear(6, 2), way

    def forward(self, x, k):
        if self.way == "one_hot":
            told = nn.functional.one_hot(k, 5).to(x.dtype)
        elif self.way == "index_add_":
            told = torch.zeros(3, 5, dtype=x.dtype).index_add_(0, k, x[:, :1].expand(-1, 5))
        else:
            told = torch.zeros(3, 5, dtype=x.dtype).scatter_(1, k[:, None], 1.0)
        return self.head(self.stem(x) + self.down(self.up(told).relu()))


@pytest.mark.parametrize("way", ["one_hot", "index_add_", "scatter_"])
def test_whole_numbers_that_say_which_one_count(way):
    x, k = TOKENS[:, 0], torch.tensor([0, 2, 1])
    found = paths(capture(Numbered(way), (x, k))[-1])
    branch = replace(found, readers={"up": ("down",)})
    assert found.answers([])
    assert not branch.answers(["up"])
    assert len(found.inputs) == 2


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

"""Which layers become constants when a branch goes, and which stay."""

from types import MethodType

import pytest
import torch
from branching import IMAGE, TOKENS, Mixer, Mlp, check, gone
from torch import nn

import vibnet
from vibnet import attach, prune
from vibnet.errors import VerificationError
from vibnet.layers import Constant


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


class Typed(Mixer):
    """A model that asks a layer for the type of its weight, as some of transformers do."""

    def forward(self, x):
        return super().forward(x.to(self.mlp.down.weight.dtype))


def test_a_model_may_ask_what_was_replaced_for_its_type():
    gated = gone(Typed(), TOKENS, "mlp.up")
    small, report = prune(gated)
    check(gated, small, TOKENS)
    assert set(report.constants) == {"mlp.up", "mlp.down"}


class Worded(nn.Module):
    """A branch whose first convolution pads in a way of its own."""

    def __init__(self, **padding):
        super().__init__()
        self.stem, self.up = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, 5, **padding)
        self.down, self.head = nn.Conv2d(4, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x)
        return self.head((x + self.down(self.up(x).relu())).mean((2, 3)))


def test_a_layer_whose_shape_is_no_formula_of_numbers_stays():
    gated = gone(Worded(padding="same"), IMAGE, "up")
    small, report = prune(gated)
    check(gated, small, IMAGE)
    assert set(report.constants) == {"down"}


def test_a_layer_that_fails_on_small_images_stays():
    gated = gone(Worded(padding=2, padding_mode="reflect"), IMAGE, "up")
    small, report = prune(gated)
    check(gated, small, IMAGE)
    assert set(report.constants) == {"down"}
    with pytest.raises(RuntimeError, match=r"[Pp]adding"):
        small(torch.zeros(1, 1, 1, 8, dtype=torch.float64))


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

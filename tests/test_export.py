import copy
import importlib.util
import itertools
import sys

import pytest
import torch
from torch import nn

from vibnet import export
from vibnet.errors import CaptureError, ConfigError, VerificationError
from vibnet.export import checked, inputs_like, to_onnx, to_pt2

MISSING = [n for n in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(n)]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"THE ONNX EXPORT IS NOT TESTED: {MISSING} NOT INSTALLED, pip install "
    "'vibnet[export]'"
)  # fmt: skip
BOTH = [pytest.param(to_onnx, "m.onnx", marks=needs_onnx), pytest.param(to_pt2, "m.pt2")]
CALLS = itertools.count()
both = pytest.mark.parametrize(("write", "name"), BOTH)


def net(seed=0):
    torch.manual_seed(seed)
    layers = (nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(36, 5))


class Counting(nn.Module):
    """Answers by how often it was called: an export keeps one number for ever."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x) + next(CALLS)


class OnlyTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, x):
        if x.shape[0] != 2:
            raise ValueError("two rows, please")
        return self.fc(x)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.fc = nn.Embedding(11, 4), nn.Linear(4, 2)

    def forward(self, scale, ids):
        return self.fc(self.table(ids)) * scale[:, None, None]


class Biased(nn.Module):
    """Attention with a learned bias of its positions, as in T5 and Swin."""

    def __init__(self):
        super().__init__()
        self.qkv, self.table = nn.Linear(8, 24), nn.Embedding(9, 2)

    def forward(self, x):
        parts = self.qkv(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        places = torch.arange(x.shape[1])
        bias = self.table(places[:, None] - places + 4).permute(2, 0, 1)[None]
        mixed = nn.functional.scaled_dot_product_attention(*parts, attn_mask=bias)
        return mixed.transpose(1, 2).reshape(*x.shape[:2], -1)


@both
def test_a_file_answers_as_pytorch_on_other_inputs_and_batches(write, name, tmp_path):
    model, example = net(), torch.randn(2, 2, 6, 6)
    done = write(model, example, tmp_path / name)
    assert done.path.stat().st_size == done.bytes
    assert done.difference <= export.TOLERANCE
    assert [*tmp_path.iterdir()] == [tmp_path / name]
    assert set(done.latency) == set(done.torch_latency) == {"1", "32"}
    assert model.training


@needs_onnx
def test_onnxruntime_itself_gives_the_answers_of_an_exported_file(tmp_path):
    import onnxruntime

    model = net()
    to_onnx(model, torch.randn(2, 2, 6, 6), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for rows in (1, 3, 17):
        x = torch.randn(rows, 2, 6, 6)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(found), model.eval()(x))


@both
def test_a_model_with_named_and_whole_numbered_inputs_is_exported(write, name, tmp_path):
    example = {"ids": torch.tensor([[1, 10, 3], [0, 2, 5]]), "scale": torch.tensor([1.0, 2.0])}
    assert write(Named(), example, tmp_path / name).difference <= export.TOLERANCE


@both
def test_attention_with_a_learned_bias_is_exported_and_still_learns(write, name, tmp_path):
    torch.manual_seed(0)
    model = Biased()
    assert write(model, torch.randn(2, 5, 8), tmp_path / name).difference <= export.TOLERANCE
    assert all(p.requires_grad for p in model.parameters())


@both
def test_a_refusal_says_the_first_cause_and_not_the_advice_around_it(
    write, name, tmp_path, monkeypatch
):
    def wrapped(model, example):
        try:
            raise ValueError("no such view\nand more")
        except ValueError as error:
            raise RuntimeError("This is step 2/3. Next steps:") from error

    for maker in ("_program", "_onnx_program"):
        monkeypatch.setattr(export, maker, wrapped)
    with pytest.raises(
        CaptureError, match=rf"Sequential cannot be written as {name}: no such view$"
    ):
        write(net(), torch.randn(2, 2, 6, 6), tmp_path / name)
    assert not [*tmp_path.iterdir()]


@both
def test_a_model_that_changes_with_every_call_fails_the_check_and_leaves_no_file(
    write, name, tmp_path
):
    with pytest.raises(VerificationError, match="answers differently from PyTorch on a batch of 1"):
        write(Counting(), torch.randn(2, 3), tmp_path / name)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("maker", ["_program", pytest.param("_onnx_program", marks=needs_onnx)])
def test_an_export_of_a_slightly_wrong_network_fails_and_keeps_the_older_file(
    maker, tmp_path, monkeypatch
):
    honest = getattr(export, maker)

    def wrong(model, example):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other[-1].weight[0, 0] += 1e-2
        return honest(other, example)

    monkeypatch.setattr(export, maker, wrong)
    path = tmp_path / "m"
    path.write_text("older")
    write = to_onnx if maker == "_onnx_program" else to_pt2
    with pytest.raises(VerificationError, match="The file was removed"):
        write(net(), torch.randn(2, 2, 6, 6), path)
    assert path.read_text() == "older"


@both
def test_a_model_for_one_batch_size_is_refused(write, name, tmp_path):
    with pytest.raises(
        CaptureError, match=r"OnlyTwo (cannot be written as|itself does not run on)"
    ):
        write(OnlyTwo(), torch.randn(2, 3), tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_a_check_refuses_other_outputs_and_a_program_that_does_not_run():
    model, example = net().eval(), torch.randn(2, 2, 6, 6)

    def breaks(x):
        raise RuntimeError("no such operator\nand more")

    with pytest.raises(VerificationError, match="does not run on a batch of 1: no such operator"):
        checked(model, breaks, example, "x.onnx")
    with pytest.raises(VerificationError, match="moved by inf"):
        checked(model, lambda x: [model(x)[:, :-1]], example, "x.onnx")
    with pytest.raises(VerificationError, match="moved by inf"):
        checked(model, lambda x: [], example, "x.onnx")
    with pytest.raises(VerificationError, match="moved by inf"):
        checked(model, lambda x: [model(x) * torch.nan], example, "x.onnx")
    assert checked(model, lambda x: [model(x)], example, "x.onnx") == 0


def test_a_missing_package_or_folder_is_named(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="there is no folder"):
        to_pt2(net(), torch.randn(2, 2, 6, 6), tmp_path / "no" / "m.pt2")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"not installed.*vibnet\[export\]"):
        to_onnx(net(), torch.randn(2, 2, 6, 6), tmp_path / "m.onnx")


def test_inputs_are_like_the_example_but_for_their_rows():
    example = (torch.full((2, 3), 5.0), torch.tensor([[3, 7], [4, 4]]), torch.tensor(2.0))
    x, ids, scalar = inputs_like(example, 50)
    assert x.shape == (50, 3)
    assert abs(x.mean() - 5) < 0.5
    assert ids.dtype == torch.int64
    assert (int(ids.min()), int(ids.max())) == (3, 7)
    assert scalar is example[2]
    assert torch.equal(inputs_like(example, 50)[0], x)


@both
def test_a_path_that_is_no_file_is_refused(write, name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(ConfigError, match="is there and is no file"):
        write(net(), torch.randn(2, 2, 6, 6), tmp_path / name)
    assert (tmp_path / name).is_dir()


@both
def test_an_example_that_the_model_does_not_take_is_named_first(write, name, tmp_path):
    with pytest.raises(CaptureError, match=r"Sequential itself does not run on a batch of 1"):
        write(net(), torch.randn(2, 3, 6, 6), tmp_path / name)
    assert not (tmp_path / name).exists()

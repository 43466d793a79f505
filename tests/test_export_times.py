"""Which of two times is the file's and which is PyTorch's."""

import importlib.util

import pytest
import torch
from torch import nn

from vibnet import export
from vibnet.export import to_onnx, to_pt2

MISSING = [n for n in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(n)]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed")


@pytest.mark.parametrize("write", [pytest.param(to_onnx, marks=needs_onnx), to_pt2])
def test_the_time_of_the_file_and_of_pytorch_are_kept_apart(write, tmp_path, monkeypatch):
    def of_file(answer, x):
        assert not isinstance(answer, nn.Module)
        (y,) = answer(x)
        return 1e-3 * len(y)

    def of_pytorch(model, example, rows):
        assert isinstance(model, nn.Linear)
        assert example.shape == (2, 3)
        return 1e-6 * rows

    monkeypatch.setattr(export, "_seconds", of_file)
    monkeypatch.setattr(export, "latency", of_pytorch)
    done = write(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "m")
    assert done.latency == pytest.approx({"1": 1e-3, "32": 32e-3})
    assert done.torch_latency == pytest.approx({"1": 1e-6, "32": 32e-6})
    assert done.threads == torch.get_num_threads()

import copy
import importlib.util
import json

import pytest
import torch
from recorded import short_run, vibnet, written

from vibnet import export

MISSING = [n for n in ("onnx", "onnxruntime", "onnxscript") if not importlib.util.find_spec(n)]
needs_onnx = pytest.mark.skipif(
    bool(MISSING), reason=f"vibnet export --onnx IS NOT TESTED: {MISSING} NOT INSTALLED"
)


def test_both_networks_are_counted_and_timed(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    run = json.loads((folder / "run.json").read_text())
    body = json.loads(vibnet("bench", folder, "--threads", "1", "--json").stdout)
    assert (body["threads"], body["device"]) == (1, "cpu")
    for name, before in (("dense", "before"), ("small", "after")):
        assert {k: v for k, v in body[name].items() if k != "latency"} == run[before]
        assert 0 < body[name]["latency"]["1"] < 1
    text = vibnet("bench", folder, "--threads", "1").stdout
    assert "latency of 32" in text
    assert "median of a forward on cpu, 1 thread(s)" in text
    assert "--threads must be at least 1" in vibnet("bench", folder, "--threads", "0").stderr


@needs_onnx
def test_an_export_is_checked_timed_and_shown_in_the_report(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    paths = tmp_path / "m.onnx", tmp_path / "m.pt2"
    done = vibnet("export", folder, "--onnx", paths[0], "--pt2", paths[1])
    assert done.exit_code == 0, done.output
    assert all(path.stat().st_size for path in paths)
    assert "answers moved by" in done.stdout
    text = (folder / "export.json").read_text()
    assert str(tmp_path) not in text
    files = json.loads(text)["files"]
    assert [f["runs_in"] for f in files] == ["onnxruntime", "torch.export"]
    assert all(f["difference"] <= 1e-5 for f in files)
    page = (folder / "report.html").read_text()
    assert "m.onnx (onnxruntime)" in page
    assert "the same network in PyTorch" in page


def test_a_wrong_export_fails_loudly_and_leaves_nothing(tmp_path, monkeypatch):
    folder, _ = short_run(tmp_path / "run")
    honest = export._program

    def wrong(model, example):
        other = copy.deepcopy(model)
        with torch.no_grad():
            next(other.parameters()).mul_(1.01)
        return honest(other, example)

    monkeypatch.setattr(export, "_program", wrong)
    done = vibnet("export", folder, "--pt2", tmp_path / "m.pt2")
    assert done.exit_code == 2
    assert "answers differently from PyTorch" in done.stderr
    assert not (tmp_path / "m.pt2").exists()
    assert not (folder / "export.json").exists()


def test_what_cannot_be_exported_is_one_line(tmp_path):
    folder, _ = short_run(tmp_path / "run")
    for words, text in (
        ((folder,), "give --onnx FILE, --pt2 FILE or both"),
        ((tmp_path / "missing", "--pt2", "x"), "there is no run.json"),
        ((written(tmp_path / "half", done=False), "--pt2", "x"), "is not over"),
        ((written(tmp_path / "hand"), "--pt2", "x"), "is not the run of a recipe"),
        ((folder, "--pt2", tmp_path / "no" / "x"), "there is no folder"),
    ):
        done = vibnet("export", *words)
        assert done.exit_code == 2
        assert text in done.stderr

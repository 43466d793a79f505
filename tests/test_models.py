"""Models that people use, by their own packages: what may be cut in them never gets less.

The recorded shares are those of `benchmarks/models/survey.py`.
"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from laws import EXACT, law_one

from vibnet import plan

FOLDER = Path(__file__).parents[1] / "benchmarks" / "models"
sys.path.insert(0, str(FOLDER))
from catalog import MODELS  # noqa: E402 - found by the line above

NEEDED = {"torchvision": ("torchvision",), "transformers": ("transformers",)}
RECORDED = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("results/*.json")}
NAMES = sorted(name for name, entry in MODELS.items() if entry.kind in NEEDED)
NORMED = {"convnext_tiny", "swin_t", "vit_b_16", "squeezenet1_1"}  # no batch norm
ROUNDS = {"hf_llama_lm"}  # its norms compute in float32, and their width is cut
SMALL = sorted(n for n in NAMES if MODELS[n].kind == "transformers")


def made(name):
    entry = MODELS[name]
    missing = [p for p in NEEDED[entry.kind] if importlib.util.find_spec(p) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed (make test does)")
    torch.manual_seed(0)
    return entry.make(), entry.example(2)


@pytest.mark.parametrize("name", NAMES)
def test_what_may_be_cut_does_not_get_less(name):
    found = plan(*made(name), **MODELS[name].options).cuttable
    recorded = RECORDED[name]["ours"]["cuttable"]
    assert found["macs"] >= recorded["macs"] - 1e-9
    assert found["weights"] >= recorded["weights"] - 1e-9
    kind = MODELS[name].kind
    least = 0.9 if kind == "torchvision" and name not in NORMED else 0.6
    assert found["macs"] >= least


@pytest.mark.parametrize("name", SMALL)
def test_law_one_holds_for_transformers(name):
    exact = 1e-6 if name in ROUNDS else EXACT
    report, small, _ = law_one(*made(name), tries=2, exact=exact)
    assert report.weights[1] < report.weights[0]
    assert type(small).__module__.startswith("transformers.")

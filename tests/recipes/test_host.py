import subprocess
from types import SimpleNamespace

import torch
from torch import nn

from vibnet.recipes.host import host


def test_the_host_is_described():
    found = host(nn.Linear(1, 1))
    assert found["torch"] == torch.__version__
    assert set(found) >= {"vibnet", "python", "machine", "threads", "device", "commit"}


def test_the_commit_is_that_of_a_checkout_of_ours(monkeypatch):
    answers = {"rev-parse": "src/vibnet/recipes/\n", "describe": "abc1234-dirty\n"}

    def git(words, **_options):
        return SimpleNamespace(stdout=answers[words[1]])

    monkeypatch.setattr(subprocess, "run", git)
    assert host(nn.Linear(1, 1))["commit"] == "abc1234-dirty"
    answers["rev-parse"] = "lib/python/site-packages/vibnet/recipes/\n"
    assert host(nn.Linear(1, 1))["commit"] == "unknown"

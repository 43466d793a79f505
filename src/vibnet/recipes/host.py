"""Where a run was made."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn


def host(model: nn.Module) -> dict[str, Any]:
    """Where a run was made: versions, threads, the device of the model, commit."""
    device = next(model.parameters()).device
    try:
        own = version("vibnet")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "vibnet": own,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "flush_denormals": _flushes(),
        "commit": _commit(),
    }


def _flushes() -> bool:
    return float(torch.tensor(1e-39) * 1.0) == 0.0


def _commit() -> str:
    """The commit of the source where it is a checkout of ours, and whether it has been edited."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        if git("rev-parse", "--show-prefix") != "src/vibnet/recipes/":
            return "unknown"
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

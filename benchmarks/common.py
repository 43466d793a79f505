"""What the speed scripts share: interleaved timing, facts of the host, JSON with raw samples."""

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import vibnet

RESULTS = Path(__file__).parent / "speed" / "results"
PACKAGES = ("torch", "numpy", "torch-pruning", "nvidia-modelopt")


def host(threads: int) -> dict[str, Any]:
    """Set the number of threads, and say what the numbers were measured on.

    Where the C library allows it, freed memory stays with the process: else whoever happens to get
    new pages from the kernel pays for them, and medians of the same work differ by a half.
    """
    torch.set_num_threads(threads)
    kept = platform.libc_ver()[0] == "glibc" and _keep_freed_memory()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "freed_memory_stays_with_the_process": kept,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {"vibnet": vibnet.__version__, **{name: _version(name) for name in PACKAGES}},
    }


def _keep_freed_memory() -> bool:
    trim_threshold, mmap_max = -1, -4  # numbers in malloc.h
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(trim_threshold, 2**31 - 1) and mallopt(mmap_max, 0))


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def seconds(work: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(
    works: Mapping[str, Callable[[], float]], warm_up: int, rounds: int
) -> dict[str, list[float]]:
    """Samples of several measurements that take turns, so that noise of the host hits all alike.

    Args:
        works: every call returns one sample in seconds.
        warm_up: rounds that are thrown away.
        rounds: rounds that are kept.
    """
    samples: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(warm_up + rounds):
        for name, work in works.items():
            value = work()
            if turn >= warm_up:
                samples[name].append(value)
    return samples


def summary(samples: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median, quartiles and extremes of every list of samples."""
    out = {}
    for name, values in samples.items():
        low, _, high = statistics.quantiles(values, n=4)
        out[name] = {
            "median": statistics.median(values),
            "quartile_low": low,
            "quartile_high": high,
            "best": min(values),
            "worst": max(values),
        }
    return out


def write(name: str, content: dict[str, Any]) -> Path:
    """Write a result as JSON beside the scripts, and say where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path.relative_to(RESULTS.parents[2])}")
    return path

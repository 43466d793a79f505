"""Models that do not fit into memory: a plan without weights, and files cut one after the other.

    python benchmarks/models/large.py plan    # of a Llama with 6.7 G parameters, on the meta device
    python benchmarks/models/large.py files   # of one with 1.1 G, written first to a folder in /tmp
    python benchmarks/models/large.py middle  # of one with 56 M
    python benchmarks/models/large.py files_verified   # layer by layer
    python benchmarks/models/large.py middle_verified

Each runs in a process of its own, whose largest memory is measured; JSON in results/large, with how
many processes wanted to run when it began.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import vibnet

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from common import host
from schemas import declare

RESULTS = Path(__file__).parent / "results" / "large"
EXAMPLE = torch.zeros(2, 8, dtype=torch.int64)
SHAPES = {
    "plan": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "files": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
    },
    "middle": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
}


def llama(kind: str) -> nn.Module:
    """The model on the meta device."""
    declare()
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(**SHAPES[kind], use_cache=False)
    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model


def memory() -> float:
    """The largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plan() -> dict[str, Any]:
    """Time and memory of a plan."""
    model, before = llama("plan"), memory()
    start = time.perf_counter()
    made = vibnet.plan(model, EXAMPLE)
    seconds = time.perf_counter() - start
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "memory_GiB": memory(),
        "memory_before_GiB": before,
        "sites": len(made.sizes),
        "units": sum(made.sizes.values()),
        "cuttable": made.cuttable,
    }


def write(kind: str, folder: Path, shards: int = 8) -> None:
    """Random weights of the model in files of about the same size."""
    from safetensors.torch import save_file

    held = list(llama(kind).state_dict().items())
    size = -(-len(held) // shards)
    for k in range(shards):
        part = held[k * size : (k + 1) * size]
        tensors = {n: torch.randn(v.shape, dtype=v.dtype) / v.shape[-1] ** 0.5 for n, v in part}
        save_file(tensors, folder / f"model-{k}.safetensors")


def files(kind: str, verify: bool) -> dict[str, Any]:
    """Time and memory of cutting half of all units out of files."""
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "whole", Path(place) / "small"
        source.mkdir()
        subprocess.run([sys.executable, __file__, "write", kind, str(source)], check=True)
        before = [path.stat().st_size / 2**30 for path in source.iterdir()]
        model = llama(kind)
        made = vibnet.plan(model, EXAMPLE)
        half = {name: list(range(size // 2)) for name, size in made.sizes.items()}
        start = time.perf_counter()
        wanted = replace(made, kept=half)
        report = vibnet.prune_files(model, wanted, EXAMPLE, source, target, verify=verify)
        seconds, largest = time.perf_counter() - start, memory()
        after = [path.stat().st_size / 2**30 for path in target.glob("*.safetensors")]
        config = json.loads((target / "config.json").read_text())
    return {
        "seconds": seconds,
        "memory_GiB": largest,
        "files_GiB": [sum(before), sum(after)],
        "largest_file_GiB": max(before),
        "parameters": report.weights,
        "difference": report.difference,
        "modules": len(report.layers.outputs) if report.layers else 0,
        "config": {key: config[key] for key in SHAPES[kind]},
    }


WORK: dict[str, Callable[[], dict[str, Any]]] = {
    "plan": plan,
    "files": lambda: files("files", verify=False),
    "files_verified": lambda: files("files", verify=True),
    "middle": lambda: files("middle", verify=False),
    "middle_verified": lambda: files("middle", verify=True),
}


def main() -> None:
    """Measure what is named, in a process of its own."""
    if sys.argv[1:2] == ["write"]:
        write(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[-1] == "--here":
        torch.set_num_threads(1)
        found = WORK[sys.argv[1]]() | {"shape": SHAPES[sys.argv[1].removesuffix("_verified")]}
        facts = host(1)  # afterwards: it keeps freed memory, and memory is what is measured here
        facts["freed_memory_stays_with_the_process"] = False
        print(json.dumps(found | {"host": facts}))
    else:
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("what", choices=tuple(WORK))
        what = parser.parse_args().what
        command, load = [sys.executable, __file__, what, "--here"], os.getloadavg()[0]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        RESULTS.mkdir(parents=True, exist_ok=True)
        body = json.loads(done.stdout.splitlines()[-1]) | {"load": load}
        (RESULTS / f"{what}.json").write_text(json.dumps(body, indent=1) + "\n")
        print(f"{body['seconds']:.1f} s, {body['memory_GiB']:.2f} GiB")


if __name__ == "__main__":
    main()

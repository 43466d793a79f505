"""`vibnet bench` and `vibnet export`: what the small model costs, and its way out of PyTorch."""

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from vibnet import export as exporting
from vibnet.cli import given, say
from vibnet.cli.saved import networks
from vibnet.cost import latency, measure
from vibnet.errors import ConfigError
from vibnet.report import write_page
from vibnet.report.record import EXPORT, EXPORT_SCHEMA, EXPORT_VERSION, finished
from vibnet.report.rows import duration, shrunk, size
from vibnet.surgery.files import write

BATCHES = (1, 32)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a run that is over.")]
Model = Annotated[
    str | None, typer.Option(metavar="MODULE:FACTORY", help="The model, where it is your own.")
]
Data = Annotated[
    str | None, typer.Option(metavar="MODULE:FACTORY", help="Data whose example is used.")
]
Example = Annotated[str | None, typer.Option(metavar="SHAPE", help="Shape of its input.")]


def bench(
    folder: Folder,
    model: Model = None,
    data: Data = None,
    example: Example = None,
    device: Annotated[str, typer.Option(help="Where to take the time.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Of PyTorch, while timing.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count and time the dense and the small network of a run."""
    recorded = finished(folder)
    found = networks(recorded, model, data, example)
    place = given.device(device)
    asked = json.loads((recorded.model / "plan.json").read_text())["plan"]
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}.")
    threads = threads or torch.get_num_threads()
    body: dict[str, Any] = {"threads": threads, "device": device}
    for name, network in (("dense", found.dense), ("small", found.small)):
        cost = measure(
            network, found.example, inputs=asked["inputs"], features=tuple(asked["features"])
        )
        body[name] = {k: v for k, v in asdict(cost).items() if k != "latency"}
        body[name]["latency"] = _latencies(network, found.example, place, threads)
    if as_json:
        print(json.dumps(body, indent=1))
        return
    dense, small = body["dense"], body["small"]
    lines = [
        (name, f"{dense[key]:,}", f"{small[key]:,}", _share(small[key], dense[key]))
        for name, key in (
            ("weights", "weights"),
            ("multiply-adds", "macs"),
            ("neurons", "neurons"),
            ("parameters", "parameters"),
        )
    ]
    a, b = dense["peak_memory"], small["peak_memory"]
    lines.append(("memory for one input", size(a), size(b), _share(b, a)))
    for batch in map(str, BATCHES):
        a, b = dense["latency"][batch], small["latency"][batch]
        lines.append((f"latency of {batch}", duration(a), duration(b), _share(b, a)))
    say.table(("", "dense", "small", "small, of dense"), lines, (1, 2))
    say.line(f"latency: median of a forward on {device}, {body['threads']} thread(s)")


def _share(small: float, dense: float) -> str:
    return shrunk(small / dense) if dense else ""


def _latencies(network: nn.Module, example: Any, device: str, threads: int) -> dict[str, float]:
    network = network.to(device)
    moved = tree_map(lambda x: x.to(device) if isinstance(x, Tensor) else x, example)
    return {str(batch): latency(network, moved, batch, threads) for batch in BATCHES}


def export(
    folder: Folder,
    onnx: Annotated[Path | None, typer.Option(help="ONNX file to write.")] = None,
    pt2: Annotated[Path | None, typer.Option(help="torch.export file to write.")] = None,
    model: Model = None,
    data: Data = None,
    example: Example = None,
) -> None:
    """Write the small network of a run as ONNX or with torch.export, checked against PyTorch."""
    if onnx is None and pt2 is None:
        raise ConfigError("export: give --onnx FILE, --pt2 FILE or both.")
    recorded = finished(folder)
    found = networks(recorded, model, data, example)
    files = []
    for path, runs_in, make in (
        (onnx, "onnxruntime", exporting.to_onnx),
        (pt2, "torch.export", exporting.to_pt2),
    ):
        if path is None:
            continue
        done = make(found.small, found.example, path)
        say.line(f"{path}: {done.bytes:,} bytes, answers moved by {done.difference:.1e}")
        files.append((runs_in, done))
    last = files[-1][1]
    lines = [(name, *_times(done.latency)) for name, done in files]
    lines.append(("PyTorch", *_times(last.torch_latency)))
    say.line()
    say.table(("latency", *(f"of {n}" for n in BATCHES)), lines, (1, 2))
    say.line(f"median of a call on the CPU, {last.threads} thread(s)")
    body = {
        "schema": EXPORT_SCHEMA,
        "version": EXPORT_VERSION,
        "threads": last.threads,
        "torch_latency": last.torch_latency,
        "versions": {name: _version(name) for name in ("torch", "onnx", "onnxruntime")},
        "files": [
            {
                "file": done.path.name,
                "runs_in": runs_in,
                "bytes": done.bytes,
                "difference": done.difference,
                "latency": done.latency,
            }
            for runs_in, done in files
        ],
    }
    write(recorded.folder / EXPORT, json.dumps(body, indent=1).encode())
    try:
        write_page(finished(folder))
    except ConfigError as error:
        say.warning(str(error))


def _times(seconds: dict[str, float]) -> tuple[str, ...]:
    return tuple(duration(seconds[str(n)]) for n in BATCHES)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"

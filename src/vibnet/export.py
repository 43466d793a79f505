"""Export a model as ONNX or with torch.export; the file is there only if it answers as PyTorch."""

import contextlib
import copy
import logging
import re
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.cost import latency
from vibnet.errors import CaptureError, ConfigError, VerificationError
from vibnet.graph.capture.example import arguments
from vibnet.surgery.verify import answers, difference

BATCHES = (1, 2, 32)  # rows of the inputs that an export is checked on
TIMED = (1, 32)
TOLERANCE = 1e-5  # of the output scale
LARGEST_MESSAGE = 300
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: of the file.
        bytes: its size.
        difference: how far its answers are from PyTorch's, as a part of their scale: the worst of
            all batches that were tried.
        latency: median seconds of a call by batch size: of onnxruntime, or of the loaded program.
        torch_latency: the same of the model itself in PyTorch.
        threads: of both.
    """

    path: Path
    bytes: int
    difference: float
    latency: dict[str, float]
    torch_latency: dict[str, float]
    threads: int


def inputs_like(example: Any, rows: int, seed: int = 0) -> Any:
    """Random inputs of the example's shapes and types with another number of rows.

    Floating point numbers are drawn around the example's mean with its deviation, whole numbers
    between its smallest and largest; tensors without rows stay as they are.

    >>> inputs_like(torch.zeros(2, 3), 5).shape
    torch.Size([5, 3])
    """
    generator = torch.Generator().manual_seed(seed)

    def like(x: Any) -> Any:
        if not _has_rows(x, example):
            return x
        shape = (rows, *x.shape[1:])
        if not x.is_floating_point():
            low, high = int(x.min()), int(x.max())
            return torch.randint(low, high + 1, shape, generator=generator).to(x)
        deviation = float(x.double().std(correction=0)) or 1.0
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        return (float(x.double().mean()) + deviation * numbers).to(x)

    return tree_map(like, example)


def _has_rows(x: Any, example: Any) -> bool:
    tensors = [t for t in tree_leaves(example) if isinstance(t, Tensor)]
    rows = next((t.shape[0] for t in tensors if t.ndim), 0)
    return isinstance(x, Tensor) and x.ndim > 0 and x.shape[0] == rows


def to_onnx(model: nn.Module, example: Any, path: str | Path) -> Exported:
    """Write a model as one ONNX file that takes any batch size, and check it with onnxruntime.

    Args:
        model: left untouched; exported in evaluation mode, on the CPU.
        example: what the model is called with, a batch of any size.
        path: of the file; an older one is replaced when the check has passed.

    Returns:
        What was written, with the latency of onnxruntime and of PyTorch.

    Raises:
        ConfigError: the extra `export` is not installed, or the folder is not there.
        CaptureError: the model cannot be exported.
        VerificationError: onnxruntime answers differently; no file is left.
    """
    try:
        import onnx as _onnx  # noqa: F401 - said here, not from deep inside torch
        import onnxruntime
        import onnxscript as _onnxscript  # noqa: F401 - likewise
    except ImportError as error:
        raise ConfigError(
            f"export: {error.name} is not installed. Install the extra: "
            f"pip install 'vibnet[export]'."
        ) from error
    model, example = _ready(model, example)

    def make(target: Path) -> None:
        program = _onnx_program(model, inputs_like(example, 2))
        program.save(target, external_data=False)

    def start(target: Path) -> Callable[[Any], list[Tensor]]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        session = onnxruntime.InferenceSession(
            str(target), options, providers=["CPUExecutionProvider"]
        )
        return lambda x: [torch.as_tensor(y) for y in session.run(None, _feeds(session, x))]

    return _written(model, example, Path(path), make, start)


def to_pt2(model: nn.Module, example: Any, path: str | Path) -> Exported:
    """Write a model with torch.export for any batch size, load it again and check it.

    Args:
        model: left untouched; exported in evaluation mode, on the CPU.
        example: what the model is called with, a batch of any size.
        path: of the file; an older one is replaced when the check has passed.

    Raises:
        CaptureError: the model cannot be exported.
        VerificationError: the loaded program answers differently; no file is left.
    """
    model, example = _ready(model, example)

    def make(target: Path) -> None:
        torch.export.save(_program(model, inputs_like(example, 2)), target)

    def start(target: Path) -> Callable[[Any], list[Tensor]]:
        loaded = torch.export.load(target).module()

        def answer(x: Any) -> list[Tensor]:
            args, kwargs = arguments(x)
            with torch.no_grad():
                return [y for y in tree_leaves(loaded(*args, **kwargs)) if isinstance(y, Tensor)]

        return answer

    return _written(model, example, Path(path), make, start)


def _ready(model: nn.Module, example: Any) -> tuple[nn.Module, Any]:
    def to_cpu(x: Any) -> Any:
        return x.detach().cpu() if isinstance(x, Tensor) else x

    frozen = copy.deepcopy(model).cpu().eval().requires_grad_(False)  # else torch lays out
    return frozen, tree_map(to_cpu, example)  # attention with a learned bias in two ways


def _dynamic(example: Any) -> Any:
    """The first dimension of everything with rows is free."""
    rows = torch.export.Dim("batch")
    args, kwargs = arguments(example)
    return tree_map(lambda x: {0: rows} if _has_rows(x, example) else None, kwargs or args)


def _program(model: nn.Module, example: Any) -> torch.export.ExportedProgram:
    args, kwargs = arguments(example)
    return torch.export.export(model, args, kwargs, dynamic_shapes=_dynamic(example))


def _onnx_program(model: nn.Module, example: Any) -> Any:
    args, kwargs = arguments(example)
    shapes = _dynamic(example)
    return torch.onnx.export(
        model, args, None, kwargs=kwargs, dynamo=True, verbose=False, dynamic_shapes=shapes
    )


def _feeds(session: Any, example: Any) -> dict[str, Any]:
    args, kwargs = arguments(example)
    names = [x.name for x in session.get_inputs()]
    if kwargs:
        return {name: kwargs[name].numpy() for name in names}
    tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
    return {name: x.numpy() for name, x in zip(names, tensors, strict=True)}


def _written(
    model: nn.Module,
    example: Any,
    path: Path,
    make: Callable[[Path], None],
    start: Callable[[Path], Callable[[Any], list[Tensor]]],
) -> Exported:
    """Make the file beside its place, check it there, and put it in its place."""
    if not path.parent.is_dir():
        raise ConfigError(f"export: there is no folder {path.parent}. Make it first.")
    if path.exists() and not path.is_file():
        raise ConfigError(f"export: {path} is there and is no file. Name another.")
    for rows in BATCHES:
        _expected(model, inputs_like(example, rows), rows)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        with _quiet():
            try:
                make(made)
                answer = start(made)
            except Exception as error:  # the exporters raise whatever they like
                raise CaptureError(
                    f"export: {type(model).__name__} cannot be written as {path.name}: "
                    f"{_first_line(error)}"
                ) from error
        gap = checked(model, answer, example, path.name)
        size = made.stat().st_size
        theirs = {str(n): _seconds(answer, inputs_like(example, n)) for n in TIMED}
        ours = {str(n): latency(model, example, n) for n in TIMED}
        made.replace(path)
    return Exported(path, size, gap, theirs, ours, torch.get_num_threads())


def checked(
    model: nn.Module, answer: Callable[[Any], list[Tensor]], example: Any, name: str
) -> float:
    """How far other answers are from those of a model, on random inputs of several batch sizes.

    Raises:
        VerificationError: further than `TOLERANCE`, or not for every batch size.
    """
    worst = 0.0
    for rows in BATCHES:
        x = inputs_like(example, rows, seed=rows)
        expected = _expected(model, x, rows)
        try:
            found = [y.detach().double() for y in answer(x)]
        except Exception as error:  # whatever the runtime raises
            raise VerificationError(
                f"export: {name} does not run on a batch of {rows}: {_first_line(error)}. The "
                f"file was removed."
            ) from error
        same = len(expected) == len(found)
        gap = difference(expected, found) if same else float("inf")
        if not gap <= TOLERANCE:
            raise VerificationError(
                f"export: {name} answers differently from PyTorch on a batch of {rows}: outputs "
                f"moved by {gap:.1e} of their scale, {TOLERANCE:.0e} is allowed. The file was "
                f"removed."
            )
        worst = max(worst, gap)
    return worst


def _expected(model: nn.Module, x: Any, rows: int) -> list[Tensor]:
    """PyTorch's answers, in the model's own type."""
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    try:
        return answers(model, x, own)
    except Exception as error:  # another person's forward
        raise CaptureError(
            f"export: {type(model).__name__} itself does not run on a batch of {rows}: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    while error.__cause__:  # exporters wrap it in advice of their own
        error = error.__cause__
    lines = [x.strip() for x in COLOUR.sub("", str(error)).splitlines() if x.strip()]
    return (lines[0] if lines else type(error).__name__)[:LARGEST_MESSAGE]


def _seconds(answer: Callable[[Any], Any], example: Any, seconds: float = 0.2) -> float:
    answer(example)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        answer(example)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' own warnings: they are about torch, not about the model."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

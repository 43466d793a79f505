"""One forward of a model, seen as aten calls with their module and source line."""

import contextlib
import functools
import gc
import logging
import os
import random
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from vibnet.errors import CaptureError
from vibnet.graph.capture import recall
from vibnet.graph.capture.example import arguments, shapes, tensors, ways
from vibnet.graph.capture.held import carried, held_by, tensors_of
from vibnet.graph.capture.memory import Memory
from vibnet.graph.capture.picks import Picks
from vibnet.graph.capture.refusals import in_the_way
from vibnet.graph.capture.shadow import shadow, stand_in
from vibnet.graph.capture.trace import Call, ModuleCall, Trace

INTERNAL = (
    *(f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parents[2]}{os.sep}"),
    str(contextlib.__file__),  # what decorates a function is no line of the caller's
)
DEVICE = torch.ops.prim.device.default
UNSEEN = DataDependentOutputException, DynamicOutputShapeException  # without storage only
QUERIES = {"device", "sym_size", "sym_stride", "is_contiguous", "layout", "stride", "size"}


@functools.cache
def _own(file: str) -> str:
    """The name of a file of the caller's, empty for one of torch's or ours."""
    return "" if file.startswith(INTERNAL) else Path(file).name


def _source_line() -> str:
    frame = sys._getframe(2)
    while frame is not None:
        if name := _own(frame.f_code.co_filename):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]  # the outermost frame has none
    return "?"


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    def __init__(self, trace: Trace, mode: FakeTensorMode | None, picks: Picks) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.trace, self.mode, self.memory, self.picks = trace, mode, Memory(), picks
        self.stack: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # asked hundreds of times
        kwargs = kwargs or {}
        try:
            if self.mode is None:
                out = self.picks.call(func, args, kwargs)
            else:
                out = recall.call(self.mode, func, args, kwargs)
        except Exception as error:
            self.trace.failed = error, self._call(func, args, kwargs, None, _source_line())
            raise
        if func.overloadpacket.__name__ not in QUERIES:
            call = self._call(func, args, kwargs, out, _source_line())
            self.trace.calls.append(call)
            self.memory.note(call.results, call)
        return out

    def _call(self, func: Any, args: Any, kwargs: Any, out: Any, line: str) -> Call:
        module = self.trace.modules[self.stack[-1]].name if self.stack else ""
        pointwise, stack = torch.Tag.pointwise in func.tags, tuple(self.stack)
        name = func.overloadpacket.__name__
        return Call(name, pointwise, args, kwargs, out, stack, module, line)

    def enter(self, name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.trace.modules.append(ModuleCall(name, args, kwargs))
            self.stack.append(len(self.trace.modules) - 1)

        return hook

    def leave(self, _module: nn.Module, _args: Any, output: Any) -> None:
        self.trace.modules[self.stack.pop()].output = output


@contextmanager
def uncollected() -> Iterator[None]:
    """Python does not look for garbage: a trace keeps what it makes, and a look walks through it.

    Looks are a quarter of the time of a deep model otherwise. Also a decorator.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


@contextmanager
def quiet() -> Iterator[None]:
    """Attention fast paths off, autocast off, no log of failing calls, random states restored.

    Those of Python and numpy too: models draw from them which layers a forward leaves out.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    drawn, by_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - models draw from it
    one_call = torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)  # recurrent layers as their products, not as one call
    log.setLevel(logging.CRITICAL)
    try:
        with torch.random.fork_rng(), torch.autocast("cpu", enabled=False), torch.enable_grad():
            yield
    finally:
        random.setstate(drawn)
        np.random.set_state(by_numpy)  # noqa: NPY002 - as above
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(one_call)
        log.setLevel(level)


@uncollected()
def run(
    model: nn.Module,
    example: Any,
    training: bool,
    mode: FakeTensorMode | None,
    into: Trace | None = None,
    like: Trace | None = None,
) -> Trace:
    """Run a shadow of a model once and record it. `model` itself must already be a shadow.

    Args:
        into: an empty trace to fill, which then also tells how far a forward came that fails.
        like: a trace whose picks by value are made again, instead of its own.
    """
    fake = functools.partial(_fake, mode) if mode else _clone
    args, kwargs = tree_map(fake, arguments(example))
    trace = into or Trace(training, model)
    trace.example = example
    recorder = _Recorder(trace, mode, Picks(like.picks if like else ()))
    trace.picks = recorder.picks.made
    trace.inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    recorder.memory.note(trace.inputs, "an input of the model")
    for name, value in (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ):
        trace.state.setdefault(id(value), name)
        recorder.memory.note([value], name)
    before = tensors_of(model)
    with ExitStack() as stack:
        for name, module in model.named_modules():
            first = module.register_forward_pre_hook(recorder.enter(name), with_kwargs=True)
            last = module.register_forward_hook(recorder.leave)
            stack.callback(first.remove)
            stack.callback(last.remove)
        stack.enter_context(quiet())
        if mode is not None:
            stack.enter_context(mode)
        stack.enter_context(recorder)
        output = model(*args, **kwargs)
    trace.outputs = list(tensors(output))
    trace.held = [(name, x) for name, m in model.named_modules() for _, x in held_by(m)]
    trace.moved = recorder.memory.moved()
    trace.carried = carried(trace, before, model)
    return trace


def _fake(mode: FakeTensorMode, x: Any) -> Any:
    if isinstance(x, Tensor) and x.is_meta:
        return stand_in(x, mode)
    return mode.from_tensor(x) if isinstance(x, Tensor) else x


def _clone(x: Any) -> Any:
    return x.detach().clone() if isinstance(x, Tensor) else x


@uncollected()
def capture(model: nn.Module, example: Any) -> list[Trace]:
    """The forward of a model in train and in eval mode; the model is left untouched.

    Raises:
        CaptureError: the model does not run on the example.
    """
    failure: Exception | None = None
    for fake in (True, False):
        for inputs in ways(example):
            try:
                traces = []
                for training in (True, False):
                    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
                    copied = shadow(model, mode)
                    if not training:
                        copied.eval()
                    elif not model.training:  # else the caller's own modes, frozen norms and all
                        copied.train()
                    traces.append(run(copied, inputs, training, mode))
                return traces
            except CaptureError:
                raise
            except Exception as error:
                if failure is None or isinstance(failure, UNSEEN):
                    failure = error
    name, what = type(model).__name__, in_the_way(model)
    if what:
        raise CaptureError(f"{name} {what}") from failure
    raise CaptureError(
        f"{name} does not run on the example ({shapes(example)}): {failure} (at "
        f"{place_of(failure)}). Pass an example that the model accepts in train and in eval mode."
    ) from failure


def place_of(error: BaseException | None) -> str:
    """The last line of the caller's own code that an error passed through, as file:line."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    own = [f for f in frames if not f.filename.startswith(INTERNAL)] or frames
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"

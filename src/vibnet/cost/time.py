"""How long a forward takes."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from vibnet.cost.tensors import batch_of, tensors
from vibnet.errors import ConfigError
from vibnet.graph.capture.example import arguments


def latency(
    model: nn.Module, example: Any, batch: int, threads: int | None = None, seconds: float = 0.2
) -> float:
    """Median wall seconds of one eval forward without gradients.

    Args:
        model: Any module, timed where its tensors are; its modes are restored.
        example: A batch of any size; its first row is repeated.
        batch: Rows to run on.
        threads: Threads of PyTorch while timing; as they are where not given.
        seconds: For how long to repeat the forward, after a warm-up; at least three times.

    Raises:
        ConfigError: Batch, threads or seconds are not positive.
    """
    times: list[float] = []
    with timing(model, example, batch, threads, seconds) as (forward, wait):
        forward()
        end = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < end:
            start = time.perf_counter()
            forward()
            wait()
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def timing(
    model: nn.Module, example: Any, batch: int, threads: int | None, seconds: float
) -> Iterator[tuple[Callable[[], Any], Callable[[], None]]]:
    """A forward as `latency` times it, and what waits for its end; all else is put back.

    Raises:
        ConfigError: as `latency`.
    """
    if min(batch, seconds, 1 if threads is None else threads) <= 0:
        raise ConfigError(
            f"batch, threads and seconds must be positive, got {batch}, {threads} and {seconds}. "
            f"Pass numbers above 0."
        )
    before = torch.get_num_threads()
    modes = [(module, module.training) for module in model.modules()]
    rows = batch_of(tensors(arguments(example)))
    wide = {id(x) for x in tensors(arguments(example)) if x.ndim and x.shape[0] == rows}
    args, kwargs = tree_map(lambda x: x[[0] * batch] if id(x) in wide else x, arguments(example))
    cuda = any(x.is_cuda for x in (*model.parameters(), *tensors(args, kwargs)))
    try:
        torch.set_num_threads(threads or before)
        model.eval()
        with torch.no_grad():
            yield lambda: model(*args, **kwargs), torch.cuda.synchronize if cuda else lambda: None
    finally:
        torch.set_num_threads(before)
        for module, mode in modes:
            module.training = mode

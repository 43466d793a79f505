"""What calls of tensors without storage give, known from earlier calls of tensors laid out alike.

Fake tensors remember results too, but take several times as long to see that two calls are alike.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from vibnet.graph.capture.memory import storage

LIMIT = 20_000  # calls
UNSURE = {  # results that depend on more than sizes, or another size for what is given
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}
SIMPLE = {
    *(int, float, bool, str, type(None)),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
}


class _Odd(Exception):
    """Something in a call that is not remembered."""


class _Made(NamedTuple):
    """A result: the argument by number that it is (`same`) or shares memory with, -1 for none."""

    at: int
    same: bool
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


Given = dict[int, tuple[int, FakeTensor]]  # by identity, with its number
_KNOWN: dict[Any, tuple[Any, list[_Made | None]]] = {}


def call(mode: FakeTensorMode, func: Any, args: Any, kwargs: Any) -> Any:
    """The result of a call, worked out only where none like it was made before."""
    if not _sure(func):
        return func(*args, **kwargs)
    given: Given = {}
    key = _key(mode, func, args, kwargs, given)
    known = _KNOWN.get(key)
    if known is None:
        out = func(*args, **kwargs)
        if key is not None and (given or "device" in kwargs):  # else the device is not told
            _remember(key, out, [x for _, x in given.values()])
        return out
    kind, made = known
    tensors = [x for _, x in given.values()]
    results = [None if m is None else _again(m, mode, tensors) for m in made]
    return results[0] if kind is None else kind(results)


@cache
def _sure(func: Any) -> bool:
    """Whether the sizes of a call's results follow from those of what it is given."""
    return isinstance(func, OpOverload) and func.namespace == "aten" and not UNSURE & {*func.tags}


def _key(mode: FakeTensorMode, func: Any, args: Any, kwargs: Any, given: Given) -> Any:
    """All that a result depends on, None where there is more to it; tensors come into `given`."""
    try:
        told = _told(args, mode, given), _told(tuple(kwargs.items()), mode, given)
    except _Odd:
        return None
    return func, torch.get_default_dtype(), told


def _told(x: Any, mode: FakeTensorMode, given: Given) -> Any:
    if isinstance(x, FakeTensor):
        if x.fake_mode is not mode or x.constant is not None or not _plain(x):
            raise _Odd
        number, _ = given.setdefault(id(x), (len(given), x))
        laid = x.shape, x.stride(), x.storage_offset(), x.dtype
        return number, *laid, x.fake_device, x.requires_grad
    kind = type(x)
    if kind in SIMPLE:
        return kind, x
    if kind is list or kind is tuple:
        return kind, *[_told(y, mode, given) for y in x]
    raise _Odd


def _plain(x: Tensor) -> bool:
    return x.layout == torch.strided and not x.dtype.is_complex and not x.is_quantized


def _again(made: _Made, mode: FakeTensorMode, given: list[FakeTensor]) -> Tensor:
    if made.same:
        return given[made.at]
    with torch._C._DisableTorchDispatch():
        meta = torch.empty_strided(made.shape, made.stride, dtype=made.dtype, device="meta")
        if made.at >= 0:
            memory = given[made.at].untyped_storage()
            meta.set_(memory, made.offset, made.shape, made.stride)
    return FakeTensor(mode, meta, made.device)


def _remember(key: Any, out: Any, given: list[FakeTensor]) -> None:
    """Keep what a call gave, if it is tensors that can be made again."""
    several = type(out) in (list, tuple)
    try:
        made = [_made(x, given) for x in (out if several else [out])]
    except _Odd:
        return
    if len(_KNOWN) >= LIMIT:
        _KNOWN.clear()
    _KNOWN[key] = type(out) if several else None, made


def _made(x: Any, given: list[FakeTensor]) -> _Made | None:
    if x is None:
        return None
    if not isinstance(x, FakeTensor) or x.constant is not None or not _plain(x):
        raise _Odd
    own = [k for k, y in enumerate(given) if y is x]
    near = own or [k for k, y in enumerate(given) if storage(y) == storage(x)]
    if len(near) > 1:  # whose memory it is cannot be told
        raise _Odd
    at, offset = (near or [-1])[0], int(x.storage_offset())
    return _Made(at, bool(own), x.shape, x.stride(), offset, x.dtype, x.fake_device)

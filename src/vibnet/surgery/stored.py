"""Models whose weights stay in their files: an operation reads what it needs, and lets go of it."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

PARTS = {  # operators that may use some rows of a table only, and do not compute with them
    *("embedding", "index", "index_select", "select", "slice", "gather", "narrow"),
    *("split", "split_with_sizes", "unbind", "chunk"),
}
SOME = PARTS | {"_embedding_bag", "_embedding_bag_forward_only"}  # those, and one that computes


def wide(kind: torch.dtype) -> torch.dtype:
    """Double precision for a floating point type; other types are themselves."""
    return torch.complex128 if kind.is_complex else torch.double if kind.is_floating_point else kind


class Stored(Tensor):
    """A parameter that lies in a file: every operation with it reads it anew.

    It stands for a tensor on the CPU, in double precision. `used` holds the operations so far.
    """

    read: Callable[[], Tensor]
    used: set[str]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        read: Callable[[], Tensor],
        used: set[str] | None = None,
    ) -> "Stored":
        """A stand-in for what `read` gives; `used` collects the operations."""
        make: Any = Tensor._make_wrapper_subclass
        out: Stored = make(cls, shape, dtype=wide(dtype), device="cpu")
        out.read = read
        out.used = set() if used is None else used
        out._is_param = True  # what nn.Parameter is known by
        return out

    def __deepcopy__(self, memo: dict[int, Any]) -> "Stored":
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch has no types here
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if name == "detach":
            (x,) = args
            return cls.of(tuple(x.shape), x.dtype, x.read, x.used)

        def real(x: Any) -> Any:
            if not isinstance(x, Stored):
                return x
            x.used.add(name)
            return x.read() if name in PARTS else _finer(x.read())

        out = func(*tree_map(real, args), **tree_map(real, kwargs or {}))
        return tree_map(_finer, out) if name in PARTS else out


def _finer(x: Any) -> Any:
    return x.to(wide(x.dtype)) if isinstance(x, Tensor) else x


class Double(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Nothing is computed in less than double precision, whatever type a forward asks for."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if isinstance(kwargs.get("dtype"), torch.dtype):
            kwargs["dtype"] = wide(kwargs["dtype"])
        return func(*args, **kwargs)


@contextmanager
def double() -> Iterator[None]:
    """Everything is computed in double precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Double():  # type: ignore[no-untyped-call]  # torch has no types here
            yield
    finally:
        torch.set_default_dtype(before)


def bare(model: nn.Module, stored: Mapping[str, Tensor]) -> nn.Module:
    """A copy with other tensors by their names.

    Tensors that have several names are given under the first.
    """
    memo: dict[int, Any] = {}
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if name in stored:
            memo[id(value)] = stored[name]
    return copy.deepcopy(model, memo)


def hollow(model: nn.Module) -> nn.Module:
    """A copy with its parameters on the meta device."""
    memo: dict[int, Any] = {}
    for value in model.parameters():
        empty = nn.Parameter(torch.empty_like(value, device="meta"), value.requires_grad)
        memo[id(value)] = empty
    return copy.deepcopy(model, memo)


def doubled(model: nn.Module) -> nn.Module:
    """A model with what it holds itself on the CPU and in double precision, in place."""
    done: dict[int, Any] = {}
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for leaf, value in table.items():
                if value is not None and not isinstance(value, Stored) and not value.is_meta:
                    new = value.detach().to("cpu", wide(value.dtype))
                    table[leaf] = done.setdefault(id(value), _like(value, new))
    return model


def _like(value: Tensor, new: Tensor) -> Tensor:
    return nn.Parameter(new, False) if isinstance(value, nn.Parameter) else new


def unfilled(model: nn.Module, saved: Collection[str]) -> list[str]:
    """The tensors on the meta device that no file holds, by name; of attributes too."""
    held = (
        (f"{prefix}.{leaf}".lstrip("."), value)
        for prefix, owner in model.named_modules()
        for table in (owner._parameters, owner._buffers, vars(owner))
        for leaf, value in table.items()
    )
    return [n for n, v in held if isinstance(v, Tensor) and v.is_meta and n not in saved]


@contextmanager
def empty() -> Iterator[None]:
    """Models made inside have parameters on the meta device, and buffers with their numbers."""
    register = nn.Module.register_parameter

    def put(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        if param is not None and not param.is_meta:
            self._parameters[name] = nn.Parameter(param.to("meta"), param.requires_grad)

    nn.Module.register_parameter = put  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]

"""What the functions of this package ask of their arguments, said once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from reprlib import repr as short
from typing import Any, get_args, get_origin

from torch import Tensor, nn

from vibnet.errors import ConfigError


def module(function: str, given: object) -> None:
    """Refuse what is no model.

    Raises:
        ConfigError: it is no module, or the class of one.
    """
    if isinstance(given, type):
        raise ConfigError(
            f"{function}: the model must be a torch.nn.Module, got the class {given.__name__}. "
            f"Make one of it first: {given.__name__}(...)."
        )
    if not isinstance(given, nn.Module):
        raise ConfigError(
            f"{function}: the model must be a torch.nn.Module, got {type(given).__name__}."
        )


def only_tensors(function: str, model: nn.Module) -> None:
    """Refuse a model that cannot be stored whole.

    Raises:
        ConfigError: its state holds something else than tensors.
    """
    other = [n for n, x in model.state_dict().items() if not isinstance(x, Tensor)]
    if other:
        raise ConfigError(
            f"{function}: the state of {type(model).__name__} holds what is no tensor "
            f"({', '.join(other)}), and files of tensors cannot. Leave get_extra_state out, or "
            f"store the model with torch.save."
        )


def names(argument: str, given: Any) -> list[str]:
    """A list of names; a single string is one name, not its letters.

    Raises:
        ConfigError: something else than names.
    """
    found = [given] if isinstance(given, str) else given
    if isinstance(found, Iterable):
        found = list(found)
        if all(isinstance(name, str) for name in found):
            return found
    raise ConfigError(f"{argument} must be a list of names, got {given!r}.")


def flag(argument: str, given: Any) -> bool:
    """True or False and nothing else.

    Raises:
        ConfigError: something else.
    """
    if not isinstance(given, bool):
        raise ConfigError(f"{argument} must be True or False, got {given!r}.")
    return given


def number(argument: str, given: Any) -> float:
    """A finite number of at least 0.

    Raises:
        ConfigError: something else.
    """
    if not is_number(given):
        raise ConfigError(f"{argument} must be a finite number >= 0, got {given!r}.")
    return float(given)


def is_number(given: Any) -> bool:
    """Whether something is a finite number of at least 0."""
    try:
        return type(given) is not bool and isinstance(given, Real) and 0 <= float(given) < math.inf
    except OverflowError:
        return False


def misfit(value: Any, kind: Any, where: str) -> str:
    """What is wrong with a value that should be of a type, empty if nothing is.

    Args:
        value: as JSON gives it: a list will do for a tuple.
        kind: such as ``dict[str, list[int]]``; Any is fit by all.
        where: what to call the value.

    >>> misfit({"a": [0, "b"]}, dict[str, list[int]], "kept")
    "kept['a'][1] must be int, got 'b'"
    """
    if kind is Any:
        return ""
    outer, inner = get_origin(kind) or kind, get_args(kind)
    known = {dict: Mapping, list: Sequence, tuple: Sequence, int: Integral}
    bad = isinstance(value, bool) != (outer is bool) or isinstance(value, str) != (outer is str)
    if bad or not isinstance(value, known.get(outer, outer)):
        return f"{where} must be {kind if inner else outer.__name__}, got {short(value)}"
    parts: list[tuple[Any, Any, str]] = []
    if inner and outer is dict:
        parts = [(k, inner[0], f"a key of {where}") for k in value]
        parts += [(v, inner[1], f"{where}[{k!r}]") for k, v in value.items()]
    elif inner:
        parts = [(v, inner[0], f"{where}[{i}]") for i, v in enumerate(value)]
    return next((found for part in parts if (found := misfit(*part))), "")


def misfits(body: Mapping[str, Any], kinds: Mapping[str, Any]) -> str:
    """What is wrong with fields that should have these names and types, empty if nothing is."""
    if unknown := [repr(name) for name in body if name not in kinds]:
        return f"there is no field {', '.join(unknown)}"
    if missing := [name for name in kinds if name not in body]:
        return f"there must be {', '.join(missing)}"
    return next((found for k, v in body.items() if (found := misfit(v, kinds[k], k))), "")

"""What a person types, as values."""

import importlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vibnet.errors import ConfigError

DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def changes(given: Sequence[str]) -> dict[str, str]:
    """Settings from texts like `gamma=1e-3`.

    Raises:
        ConfigError: no equals sign, or a setting twice.
    """
    out: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes key=value, got {text!r}.")
        if name in out:
            raise ConfigError(f"--set names {name} twice: {out[name]!r} and {value!r}.")
        out[name] = value
    return out


def prices(text: str | None) -> dict[str, Any]:
    """The option `weights` of `vibnet.attach`: a kind, or prices like `conv1=area,fc1=30`.

    >>> prices("conv1=area,fc1=30")
    {'weights': {'conv1': 'area', 'fc1': 30.0}}

    Raises:
        ConfigError: a part without its site or its price, or a site twice.
    """
    if text is None:
        return {}
    if "=" not in text:
        return {"weights": text}
    out: dict[str, float | str] = {}
    for part in text.split(","):
        site, _, price = (word.strip() for word in part.rpartition("="))
        if not site or not price:
            raise ConfigError(f"--weights takes site=price by commas, got {part!r} in {text!r}.")
        if site in out:
            raise ConfigError(f"--weights names {site} twice: {out[site]} and {price}.")
        try:
            out[site] = float(price)
        except ValueError:
            out[site] = price
    return {"weights": out}


def budget(targets: Mapping[str, str | None], wanted: Mapping[str, str]) -> dict[str, str]:
    """The setting `budget` from the options that name one, by kind.

    Raises:
        ConfigError: more than one budget, also one of `--set`.
    """
    named = [f"{kind}={text}" for kind, text in targets.items() if text is not None]
    if len(named) + ("budget" in wanted) > 1:
        raise ConfigError(
            "a run has one budget: one of --target-macs, --target-weights, --target-memory, "
            "--target-latency, --max-error, or --set budget=."
        )
    return {"budget": named[0]} if named else {}


def seconds(text: str | None) -> float:
    """Seconds from a text like `90s`, `30m`, `2h` or `1h30m`; no limit without one.

    >>> seconds("30m"), seconds("1h30m"), seconds(None)
    (1800.0, 5400.0, inf)

    Raises:
        ConfigError: a number without its unit, or no time above 0.
    """
    if text is None:
        return math.inf
    found = DURATION.fullmatch(text)
    hours, minutes, rest = (float(x or 0) for x in found.groups()) if found else (0.0, 0.0, 0.0)
    total = 3600 * hours + 60 * minutes + rest
    if not total > 0:
        raise ConfigError(
            f"--time-limit takes a time with its unit, as 90s, 30m or 2h; got {text!r}."
        )
    return total


def example(text: str) -> Tensor:
    """Random numbers of a shape given as `1,3,32,32`.

    Raises:
        ConfigError: no shape.
    """
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--example takes a shape with its batch, as 1,3,32,32; got {text!r}.")
    generator = torch.Generator().manual_seed(0)
    return torch.randn([int(part) for part in parts], generator=generator)


def device(text: str) -> str:
    """A device that is there.

    Raises:
        ConfigError: it is not.
    """
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"--device {text!r} cannot be used here: {first}") from error
    return text


def made(spec: str, option: str, seed: int = 0) -> Any:
    """What a factory `package.module:name` returns; the current folder can be imported from.

    Args:
        spec: where the factory is.
        option: that it was given for, for the errors.
        seed: of the random numbers that it draws.

    Raises:
        ConfigError: it cannot be imported or called without arguments.
    """
    factory = _factory(spec, option)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return factory()
        except (Exception, SystemExit) as error:  # another person's code
            raise ConfigError(
                f"{option}: {spec}() failed: {type(error).__name__}: {error}"
            ) from error


def _factory(spec: str, option: str) -> Callable[[], Any]:
    module, colon, name = spec.partition(":")
    if not colon or not module or not name.isidentifier():
        raise ConfigError(f"{option} takes package.module:factory, got {spec!r}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise ConfigError(f"{option}: the module {module} has no {name!r}.") from error
    except (Exception, SystemExit) as error:  # another person's code
        raise ConfigError(
            f"{option}: {module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(
            f"{option}: {spec} is a {type(found).__name__}. Name a function or a class that is "
            f"called without arguments."
        )
    factory: Callable[[], Any] = found
    return factory


def model(spec: str, seed: int = 0) -> nn.Module:
    """The model of a factory.

    Raises:
        ConfigError: as `made`, or it is no model.
    """
    found = made(spec, "--model", seed)
    if not isinstance(found, nn.Module):
        raise ConfigError(
            f"--model: {spec}() gave a {type(found).__name__}, not a torch.nn.Module."
        )
    return found


def data(spec: str, seed: int = 0) -> Any:
    """The data of a factory.

    Raises:
        ConfigError: as `made`, or something that training needs is missing.
    """
    found = made(spec, "--data", seed)
    needed = ("example", "steps", "train", "validation", "test")
    missing = [name for name in needed if not hasattr(found, name)]
    if missing:
        raise ConfigError(
            f"--data: {spec}() gave a {type(found).__name__} without {', '.join(missing)}. It "
            f"needs example, steps, train(epoch), validation() and test()."
        )
    return found

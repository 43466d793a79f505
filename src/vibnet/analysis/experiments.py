"""All experiments by name; each tells how it goes and returns what JSON holds."""

from collections.abc import Callable
from typing import Any

from vibnet.analysis.course import course
from vibnet.analysis.depth import depth
from vibnet.analysis.prices import prices
from vibnet.analysis.quadratics import quadratics

Say = Callable[[str], None]
EXPERIMENTS: dict[str, Callable[[Say], dict[str, Any]]] = {
    "quadratics": quadratics,
    "course": course,
    "depth": depth,
    "prices": prices,
}

"""What the small model may cost, as a person writes it, and what a set of units costs."""

import re
from dataclasses import dataclass

import numpy as np
import torch

from vibnet.cost import latency, measure
from vibnet.errors import ConfigError
from vibnet.graph.sites.branches import empty
from vibnet.graph.sites.constraints import Mask
from vibnet.graph.sites.prices import totals
from vibnet.surgery import depth
from vibnet.surgery.gated import Gated
from vibnet.surgery.prune import smaller

ERROR = "error"
_THOUSANDS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
UNITS: dict[str, dict[str, float]] = {
    "macs": _THOUSANDS,
    "weights": _THOUSANDS,
    "memory": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "latency": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    ERROR: {"": 1.0},
}
_WRITTEN = re.compile(r"(\w+)=([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(%|[A-Za-z]*)")
_TIMED, _LOOKS = 0.05, 3  # seconds for one look at a latency; the least of so many counts


@dataclass(frozen=True)
class Budget:
    """The most that the small model may cost, or the largest error on validation.

    Attributes:
        kind: "macs" or "weights" of an example, see `vibnet.measure`; "memory": bytes of the model
            and of its largest activations, for one example; "latency": seconds for one example,
            where the model is, with the threads of the run; or "error": the metric's mean.
        amount: in multiply-adds, weights, bytes, seconds or the metric's unit; or in percent.
        percent: whether the amount is a share of the dense model's cost.
        text: as it was written.
    """

    kind: str
    amount: float
    percent: bool
    text: str

    @staticmethod
    def parse(text: str) -> "Budget | None":
        """A budget from a text like "macs=5%", "weights=3k", "latency=2ms"; none from nothing.

        Raises:
            ConfigError: an unknown kind or unit, no number above 0, over 100 %, or a bare fraction.
        """
        if not text:
            return None
        found = _WRITTEN.fullmatch(text)
        kind = found.group(1) if found else ""
        if found is None or kind not in UNITS:
            raise ConfigError(
                f"budget: {text!r} is not a kind, '=', and a number. Kinds are {', '.join(UNITS)}, "
                f"as in 'macs=5%', 'weights=3k', 'memory=200kB', 'latency=2ms' or 'error=1.6'."
            )
        number, unit = float(found.group(2)), found.group(3)
        percent = unit == "%" and kind != ERROR
        if not percent and unit not in UNITS[kind]:
            known = [repr(u) for u in UNITS[kind] if u] + (["'%'"] if kind != ERROR else [])
            raise ConfigError(
                f"budget: {text!r} has no unit of {kind}. Write "
                f"{' or '.join(known) or 'the number alone'}."
            )
        if number <= 0 or (percent and number > 100):
            most = ", and at most 100 %" if percent else ""
            raise ConfigError(f"budget: {text!r} must be above 0{most}.")
        amount = number if percent else number * UNITS[kind][unit]
        if kind in ("macs", "weights") and amount < 1 and not percent:
            raise ConfigError(
                f"budget: {text!r} is less than one. For a share of the dense model write "
                f"'{kind}={100 * number:g}%'."
            )
        return Budget(kind, amount, percent, text)

    def limit(self, base: float) -> float:
        """The most in the kind's own unit, for a dense model that costs `base`."""
        return self.amount / 100 * base if self.percent else self.amount

    def cost(self, gated: Gated, kept: Mask) -> float:
        """What is left to pay with only these units, which must be legal; not for errors."""
        if self.kind == "weights":
            return float(totals(gated.graph, kept)[0])
        if self.kind == "macs":
            return float(totals(gated.graph, kept)[1])
        present = torch.as_tensor(kept).double() if empty(gated.graph.sites, kept) else None
        model, _ = smaller(gated.model, gated.graph, kept, present)
        depth.removed(model, gated.example, gated.graph, kept)
        if self.kind == "memory":
            return float(measure(model, gated.example).peak_memory)
        return min(latency(model, gated.example, 1, seconds=_TIMED) for _ in range(_LOOKS))

    def check(self, gated: Gated) -> None:
        """Refuse what cannot be met however many units close.

        Raises:
            ConfigError: with one unit left at every gated site the model still costs more.
        """
        if self.kind == ERROR:
            return
        masks = least_kept(gated), np.ones(gated.graph.total, dtype=np.bool_)
        looks = [
            [self.cost(gated, mask) for mask in masks]  # by turns: the machine's load may change
            for _ in range(_LOOKS if self.kind == "latency" else 1)
        ]
        least, base = (min(costs) for costs in zip(*looks, strict=True))
        limit = self.limit(base)
        if least > limit:
            raise ConfigError(
                f"budget: {self.text} allows {shown(self.kind, limit)}, but with one unit left at "
                f"every gated site the model still costs {shown(self.kind, least)}. Allow more, or "
                f"gate more: `vibnet plan` says what has no gate, and why."
            )

    def fitting(self, gated: Gated, limit: float) -> Mask:
        """The units that stay: the lowest scores go until the rest costs no more than the limit.

        Where even the units that evaluation closes are too many to lose, some of them come back.
        """
        score = gated.score()
        order = np.argsort(score, kind="stable")
        order = order[np.isfinite(score[order])]

        def without(lowest: int) -> Mask:
            wanted = np.ones(gated.graph.total, dtype=np.bool_)
            wanted[order[:lowest]] = False
            return gated.legal(wanted)

        low, high = 0, len(order)  # `high` closed units are enough, fewer than `low` are not
        while low < high:
            middle = (low + high) // 2
            if self.cost(gated, without(middle)) <= limit:
                high = middle
            else:
                low = middle + 1
        return without(low)


def least_kept(gated: Gated) -> Mask:
    """The units that stay when every gated unit is to go."""
    wanted = np.ones(gated.graph.total, dtype=np.bool_)
    for site in gated.sites:
        wanted[site.units] = False
    return gated.legal(wanted)


def shown(kind: str, amount: float) -> str:
    """An amount as a person reads it."""
    if kind == "latency":
        return f"{1000 * amount:.3g} ms"
    if kind == "memory":
        return f"{amount / 1000:,.1f} kB"
    if kind == ERROR:
        return f"{amount:.3g}"
    return f"{amount:,.0f} {'multiply-adds' if kind == 'macs' else kind}"

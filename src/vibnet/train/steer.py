"""Steer gamma towards a budget in one run."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vibnet.config import Settings
from vibnet.graph.sites.branches import empty
from vibnet.graph.sites.constraints import Mask
from vibnet.surgery.gated import Gated
from vibnet.train.budget import ERROR, Budget, shown

REACHED = 0.65  # share of the gate epochs after which the budget is to be kept
TRIM = 0.85  # share after which what is too much is cut; the rest trains the final widths
LOOKS = 200  # at the cost, over the gate epochs
PROPORTIONAL, INTEGRAL = 8.0, 60.0
SPAN = 12.0  # gamma stays within e^SPAN of where it starts, both ways
TRAVEL = 3.0  # what a multiplier moves, in its own units, before the first ones close
TIMED = math.log(2)  # the least way of a latency: less than half is near what timing is off by
WORSE = 5.0  # times the error of the dense model: more is told
FEW = 30  # gate epochs below which an error cannot be steered to with care
CHEAP = ("macs", "weights")


@dataclass
class Steering:
    """Gamma of a run with a budget.

    A size is to fall evenly on a logarithmic scale from the dense model's to the limit, from when
    the first gates can close to 65 % of the gate epochs. With e the logarithm of the cost over
    where it should be, as a part of the whole way, and p the progress,

        log gamma = log gamma_0 + 8 e + 60 * integral of e dp.

    Where the cost is below that, it is to fall evenly from there: units that are gone do not come
    back, so a gamma that waits for them would only let the others lose their noise.

    A latency is measured, and off by some tenths at times: its way counts as that to a half at
    least, and since units only go, the least that was seen counts.

    An error is approached from below: every epoch gamma grows by up to e^(8 / epochs) while the
    validation error is a standard error below the limit, less as it comes nearer, and falls twice
    as fast at most when it is above.

    After 85 % of the gate epochs the units of the lowest scores go until the budget is kept. From
    there on the widths stay.

    Attributes:
        log: of gamma over gamma_0.
        total: the integral.
        progress: of the last look.
        base: what the dense model costs.
        start: the cost from which it is to fall, and `since` which progress; 0 at first.
        least: of the latencies that were seen; 0 at first.
        trimmed: whether the final widths are there.
        live: units above the threshold that were cut to keep the budget.
        left: gated units that stayed.
        unit: what a unit costs at the end, of the site whose units cost most; 0 for errors and
            latencies. Where only several go together, as with groups, what those cost.
        shut: sites that went whole.
    """

    budget: Budget
    settings: Settings
    steps: int
    log: float = 0.0
    total: float = 0.0
    progress: float = 0.0
    base: float = 0.0
    start: float = 0.0
    since: float = 0.0
    least: float = 0.0
    trimmed: bool = False
    live: int = 0
    left: int = 0
    unit: float = 0.0
    shut: list[str] = field(default_factory=list)

    def begin(self, gated: Gated) -> None:
        """Look at the model as it is when the gates are new."""
        if self.budget.kind == ERROR:
            self.log = -math.log(4)
            return
        self.base = self.budget.cost(gated, np.ones(gated.graph.total, dtype=np.bool_))

    @property
    def limit(self) -> float:
        """The most, in the budget's unit."""
        return self.budget.limit(self.base)

    @property
    def gamma(self) -> float:
        """The present one."""
        return self.settings.gamma * math.exp(self.log)

    def wanted(self, progress: float) -> float:
        """What the model is to cost now."""
        if progress >= REACHED:
            return self.limit
        since = max(self.since, min(0.3, TRAVEL / (self.settings.gate_lr * self.steps)))
        part, start = max(0.0, (progress - since) / (REACHED - since)), self.start or self.base
        wanted: float = start * (self.limit / start) ** part
        return wanted

    def look(self, gated: Gated, progress: float, whole: bool = False) -> None:
        """Take in the cost, where it is time to. `whole`: an epoch has just ended."""
        if self.budget.kind == ERROR or self.trimmed:
            return
        if not whole and (self.budget.kind not in CHEAP or progress - self.progress < 1 / LOOKS):
            return
        way = math.log(self.base / self.limit)
        if way <= 0:
            self.log = -SPAN
            return
        cost = self.budget.cost(gated, gated.kept())
        if self.budget.kind == "latency":
            cost, way = min(cost, self.least or self.base), max(way, TIMED)
            self.least = cost
        wanted = self.wanted(progress)
        gap = math.log(cost / wanted) / way
        self.total += INTEGRAL * gap * (progress - self.progress)
        self.total = min(SPAN, max(-SPAN, self.total))
        self.log = min(SPAN, max(-SPAN, self.total + PROPORTIONAL * gap))
        self.progress = progress
        if cost < wanted:
            self.start, self.since = max(cost, self.limit), progress

    def judge(self, error: float, spread: float, epochs: int) -> None:
        """Take in the validation error of an epoch and its standard error."""
        if self.budget.kind != ERROR or self.trimmed:
            return
        gap = (self.aim(spread) - error) / max(spread, 0.01 * self.limit)
        self.log = min(SPAN, max(-SPAN, self.log + 8.0 / epochs * min(1.0, max(-2.0, gap))))

    def aim(self, spread: float) -> float:
        """The error that is steered to: half a standard error below the limit."""
        return self.limit - 0.5 * spread

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether the final widths are to be cut after this epoch."""
        return not self.trimmed and epoch >= math.ceil(TRIM * epochs)

    def final(self, gated: Gated, error_of: Callable[[Gated], float], spread: float) -> Mask:
        """The units that stay to the end, by their scores, so that the budget is kept."""
        before = gated.kept()
        if self.budget.kind == ERROR:
            kept = _lowest(gated, error_of, self.aim(spread))
        else:
            kept = self.budget.fitting(gated, self.limit)
        self.trimmed, self.live = True, int((before & ~kept).sum())
        self.left = sum(int(kept[site.units].sum()) for site in gated.sites)
        self.shut = empty(gated.sites, kept)
        if self.budget.kind not in {ERROR, "latency"}:
            self.unit = self._coarsest(gated, kept)
        return kept

    def _coarsest(self, gated: Gated, kept: Mask) -> float:
        """What a unit costs, at the site where it costs most."""
        now, score, costs = self.budget.cost(gated, kept), gated.score(), [0.0]
        for site in gated.sites:
            stays = site.units[kept[site.units]]
            stays = stays[np.argsort(score[stays], kind="stable")]
            for count in range(1, len(stays) + 1):  # of a site that went whole, none
                less = kept.copy()
                less[stays[:count]] = False
                less = gated.legal(less)
                if (less != kept).any():
                    costs.append(now - self.budget.cost(gated, less))
                    break
        return max(costs)

    def room(self, gated: Gated, kept: Any) -> bool:
        """Whether units may go so that only these stay: not below a size that is allowed."""
        if self.trimmed:
            return False
        return self.budget.kind == ERROR or self.budget.cost(gated, kept) >= self.limit

    def warning(self, error: float | None) -> str:
        """What looks wrong at the start: an error above the limit already, or little time."""
        if self.budget.kind != ERROR:
            return ""
        texts = []
        if self.settings.gate_epochs < FEW:
            texts.append(
                f"the budget is an error, which is looked at once an epoch: with "
                f"{self.settings.gate_epochs} gate epochs gamma moves fast and may overshoot. Give "
                f"it {FEW} or more."
            )
        if error is not None and error > self.limit:
            texts.append(
                f"the budget allows an error of {shown(ERROR, self.limit)}, but the dense model "
                f"has {error:.3g} on validation. Gates can lower it a little; train the dense "
                f"model longer or allow more."
            )
        return " ".join(texts)

    def haste(self) -> str:
        """What looks wrong when the final widths are cut: many units that were in use."""
        if self.live <= 0.2 * self.left or self.budget.kind == ERROR:
            return ""
        return (
            f"to keep the budget {self.budget.text}, {self.live} units that were in use have been "
            f"cut; {self.left} stay. Gamma had no time to close them: more gate epochs or a larger "
            f"gate_lr would."
        )

    def worsened(self, dense: float | None, error: float) -> str:
        """What looks wrong at the end: an error of another size than the dense model's."""
        if dense is None or self.budget.kind == ERROR or not error > WORSE * dense > 0:
            return ""
        return (
            f"to keep the budget {self.budget.text}, the error on validation went from {dense:.3g} "
            f"to {error:.3g}. Look at the course of gamma in the report: allow more, or give more "
            f"gate epochs."
        )

    def outcome(self) -> dict[str, Any]:
        """What was asked, in the budget's unit, and how it was kept."""
        return {
            "asked": self.budget.text,
            "kind": self.budget.kind,
            "limit": self.limit,
            "gamma": self.gamma,
            "unit": self.unit,
            "live_units_cut": self.live,
        }

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs."""
        whole = asdict(self)
        names = [*("log", "total", "progress", "base", "start", "since", "least")]
        names += ["trimmed", "live", "left", "unit", "shut"]
        return {name: whole[name] for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        """Become the state that was saved."""
        for name, value in state.items():
            setattr(self, name, value)


def _lowest(gated: Gated, error_of: Callable[[Gated], float], aim: float) -> Mask:
    """The fewest units, by their scores, with which the error is not above what is aimed at."""
    score = gated.score()
    above = np.unique(score[np.isfinite(score) & (score > gated.threshold)])
    before = gated.threshold
    low, high = 0, len(above)  # that many of the lowest may go; more may not
    try:
        while low < high:
            middle = (low + high + 1) // 2
            gated.threshold = float(above[middle - 1])
            if error_of(gated) <= aim:
                low = middle
            else:
                high = middle - 1
        gated.threshold = float(above[low - 1]) if low else before
        kept: Mask = gated.kept()
        return kept
    finally:
        gated.threshold = before

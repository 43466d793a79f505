"""Which sites make a trial cut fail: what the failing calls touch, and else by bisection."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vibnet.graph.capture.trace import Call
from vibnet.graph.sites.structure import Site


@dataclass(frozen=True)
class Complaint:
    """Why a cut model does not run as predicted.

    Attributes:
        text: what failed, where, and what a person can write instead.
        step: the number of the first failing call, or of the one after the last.
        call: that call.
        line: operator, kind of module and source line of that call; calls that are alike share it.
        sites: names of the sites whose units that call touches.
        alike: names of the sites that calls alike touch, with the text that fits them.
    """

    text: str
    step: int = -1
    call: Call | None = None
    line: str = ""
    sites: frozenset[str] = frozenset()
    alike: tuple[tuple[str, str], ...] = ()


Trial = Callable[[Sequence[Site]], Complaint | None]


def culprits(trial: Trial, sites: Sequence[Site], first: Complaint) -> dict[str, str]:
    """The sites without which all others pass together, with the complaint.

    A failing call names the sites that it touches; where the next failure is on the same line, all
    that calls alike touch are taken at once. Sites taken together are tried again one by one
    beside those that pass. Where the calls do not lead on, bisection finds the sites.

    Args:
        trial: cuts some sites, and gives the complaint or None.
        sites: all that are to be cut.
        first: the complaint about them all.
    """
    left, found, unsure = list(sites), dict[str, str](), list[Site]()
    why: Complaint | None = first
    while why is not None:
        taken, next_why = _touched(trial, left, why)
        if not taken:
            found |= bisected(trial, [], left, why)
            left = [s for s in left if s.name not in found]
            break
        found |= taken
        if len(taken) > 1 and len(why.sites) > 1:
            unsure += [s for s in left if s.name in why.sites]
        left = [s for s in left if s.name not in taken]
        why = next_why
    if unsure and left:
        again = trial([*left, *unsure])
        bad = bisected(trial, left, unsure, again) if again is not None else {}
        found = {k: v for k, v in found.items() if k not in {s.name for s in unsure}} | bad
    return found


def _touched(
    trial: Trial, left: list[Site], why: Complaint
) -> tuple[dict[str, str], Complaint | None]:
    """The sites that a failing call leads to, and the complaint without them.

    None where the call fails all the same.
    """
    mine = {s.name: why.text for s in left if s.name in why.sites}
    if not mine or len(left) == 1:
        return mine, None if mine else why
    rest = [s for s in left if s.name not in mine]
    after = trial(rest) if rest else None
    if after is None or after.line != why.line:
        return ({}, after) if after is not None and after.step == why.step else (mine, after)
    if after.step == why.step:
        return {}, after
    names = {s.name for s in left}
    many = mine | {name: text for name, text in why.alike if name in names and name not in mine}
    rest = [s for s in left if s.name not in many]
    return many, trial(rest) if rest else None


def bisected(
    trial: Trial, passed: Sequence[Site], sites: Sequence[Site], why: Complaint
) -> dict[str, str]:
    """Which of some sites fail beside those that have passed together, by halves."""
    if len(sites) == 1:
        return {sites[0].name: why.text}
    half, found, last = len(sites) // 2, dict[str, str](), why
    passed = list(passed)
    if (reason := trial([*passed, *sites[:half]])) is not None:
        found = bisected(trial, passed, sites[:half], reason)
        passed = [*passed, *(s for s in sites[:half] if s.name not in found)]
        again = trial([*passed, *sites[half:]])
        if again is None:
            return found
        last = again
    else:
        passed = [*passed, *sites[:half]]
    return {**found, **bisected(trial, passed, sites[half:], last)}

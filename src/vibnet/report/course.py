"""The chapter on trained networks: rate, bound and truth over the epochs, and Proposition 2."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vibnet.report.marks import picture, table
from vibnet.report.plots import figure
from vibnet.report.ticks import plain_log

Body = Mapping[str, Any]


def _layers(body: Body) -> list[str]:
    return list(body["snapshots"][0]["sites"])


def _sums(body: Body, site: str, quantity: str) -> dict[int, list[float]]:
    """Sums over the units of a layer, one for every seed, by epoch."""
    out: dict[int, list[float]] = {}
    for snapshot in body["snapshots"]:
        values = snapshot["sites"][site][quantity]
        out.setdefault(snapshot["epoch"], []).append(sum(values))
    return out


def course(body: Body, figures: Path, base: str) -> str:
    """What the units let through over the epochs; readers' columns; columns held at zero."""
    names = {"rate": "rate", "bound": "rate + psi / 2", "truth": "true information"}
    sites = _layers(body)
    with figure(figures / "course.svg", len(sites)) as axes:
        for axis, site in zip(axes, sites, strict=True):
            for quantity, label in names.items():
                sums = _sums(body, site, quantity)
                axis.plot(list(sums), [statistics.mean(v) for v in sums.values()], label=label)
            axis.set_title(f"nats in the units that layer {site} writes")
            axis.set_xlabel("epochs with gates")
            plain_log(axis, "y")
            axis.legend()
    return "\n".join(
        [_course_text(body, sites, names, base), _held(body), _columns(body, figures, base)]
    )


def _course_text(body: Body, sites: list[str], names: Mapping[str, str], base: str) -> str:
    last = max(snapshot["epoch"] for snapshot in body["snapshots"])
    rows = [
        (
            site,
            epoch,
            *(f"{statistics.mean(_sums(body, site, q)[epoch]):.1f}" for q in names),
            *_open(body, site, epoch),
        )
        for site in sites
        for epoch in _sums(body, site, "rate")
        if epoch in (0, 1, 8, 25, last)
    ]
    heads = (
        "layer",
        "epoch",
        *names.values(),
        "open units",
        "true nats an open unit",
        "a closed one",
    )
    seeds = len(body["held"])
    return f"""
## Over the epochs of `{body["recipe"]}`: rate, psi and truth

Sums over the units of a layer, means of {seeds} seeds, after some epochs with gates. Nothing is
cut. Activations are those of the validation images under the noise of the gates, and these few
hundred images are taken as the whole distribution: that makes the truth a tenth too low while snr
is in the thousands, and right within 0.03 nats where it is at most 1. psi takes delta
{body["delta"]:g} (footnote 2), so rate + psi / 2 is no strict bound. "A closed one" is what a unit
with snr at most 1 still tells of its input: by being on or off, and a little by its size. Eq. 9
never sees that, and the cut takes it away.

{picture("nats over the epochs", base, "course")}

{table(heads, rows)}
"""


def _open(body: Body, site: str, epoch: int) -> tuple[str, str, str]:
    opened, open_nats, closed_nats = [], [], []
    for snapshot in body["snapshots"]:
        if snapshot["epoch"] == epoch:
            here = snapshot["sites"][site]
            units = list(zip(here["snr"], here["truth"], strict=True))
            opened.append(sum(snr > 1 for snr, _ in units))
            open_nats += [nats for snr, nats in units if snr > 1]
            closed_nats += [nats for snr, nats in units if snr <= 1]
    of_open, of_closed = (
        f"{statistics.mean(v):.2f}" if v else "" for v in (open_nats, closed_nats)
    )
    return f"{statistics.mean(opened):.1f}", of_open, of_closed


def _held(body: Body) -> str:
    rows = []
    for epoch in [row["epoch"] for row in body["held"][0]["rows"]]:
        of = [row for held in body["held"] for row in held["rows"] if row["epoch"] == epoch]
        largest = [max(row[k] for row in of) for k in ("largest_held", "largest_other")]
        opened = statistics.mean(row["others_open"] for row in of)
        rows.append((epoch, *(f"{x:.3g}" for x in largest), f"{opened:.1f}"))
    heads = ("epoch", "largest snr of a unit held", "largest of the others", "others open, mean")
    return f"""
## Proposition 2: a unit that nobody reads closes

The {body["held"][0]["held"]} units of the first layer that the next one weighs most have their
columns held at zero through the epochs with gates. Their data term is flat: nothing holds their
snr.

{table(heads, rows)}
"""


def _columns(body: Body, figures: Path, base: str) -> str:
    sites = _layers(body)
    rows = []
    with figure(figures / "columns.svg", len(sites)) as axes:
        for axis, site in zip(axes, sites, strict=True):
            pairs = [
                (norm, snr)
                for seed in body["columns"]
                for norm, snr in zip(
                    *(seed["sites"][site][k] for k in ("norm", "snr")), strict=True
                )
            ]
            axis.loglog(*zip(*((n, max(s, 1e-12)) for n, s in pairs), strict=True), ".", ms=2)
            axis.axhline(1.0, color="black", lw=0.6)
            plain_log(axis, "x")
            axis.set_xlabel("norm of the reader's column")
            axis.set_title(f"snr, units that layer {site} writes")
            opened = [n for n, s in pairs if s > 1]
            closed = [n for n, s in pairs if s <= 1]
            rows.append(
                (site, len(opened), len(closed), *(f"{statistics.median(v):.3g}" if v else ""
                                                   for v in (opened, closed)),
                 f"{_ranks([n for n, _ in pairs], [s for _, s in pairs]):.2f}")
            )  # fmt: skip
    heads = ("layer", "open units", "closed", "median norm, open", "closed", "rank correlation")
    return f"""
### In a trained network

The norm of the column that reads a unit, and the unit's snr, at the end; {len(body["columns"])}
seeds together. The weights of these runs have no decay: a closed unit's column is not driven to
zero by anything but the noise that it would let in.

{picture("snr against the norm of the reader's column", base, "columns")}

{table(heads, rows)}
"""


def _ranks(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation, of values that are all different."""
    first, second = (np.argsort(np.argsort(values)).tolist() for values in (a, b))
    return statistics.correlation(first, second)

"""The document of the analysis: text, tables and figures from the results alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vibnet.report.course import course
from vibnet.report.frontier import text
from vibnet.report.marks import picture, table
from vibnet.report.plots import figure
from vibnet.report.ticks import plain_log

Body = Mapping[str, Any]


def document(found: Mapping[str, Body], figures: Path, base: str, command: str) -> str:
    """The whole document in Markdown; draws its figures.

    Args:
        found: results by the names of the experiments; what is missing is left out.
        figures: the folder they are drawn into.
        base: how the document names that folder.
        command: that makes it all again.
    """
    parts = [HEAD.format(command=command, base=base)]
    for name, chapter in CHAPTERS.items():
        if name in found:
            parts.append(chapter(found[name], figures, base))
    return "\n".join(part.strip() + "\n" for part in parts)


TITLE = "# What the gates let through"
HEAD = (
    TITLE
    + """

The paper's claims about its penalty, looked at one by one. Made by

    {command}

from the results in `{base}`, which the same command makes where they are missing. Nats
throughout; formulas and symbols are in [maths.md](maths.md).
"""
)


def _quadratics(body: Body, figures: Path, base: str) -> str:
    rho = body["rho"]
    with figure(figures / "rho.svg") as (axis,):
        for omega, shape in rho["shapes"].items():
            axis.plot(rho["mu"], shape["values"], label=f"omega {omega}")
        axis.plot(rho["mu"], rho["mu"], ":", color="black", label="abs. mu")
        axis.set_xlabel("abs. mu")
        axis.set_title("rho, from 0 at 0 to 1 at 1")
        axis.legend()
    heads = (
        "rank of A", "bound, rank + 1", "starts", "of them at a minimum", "open units, fewest",
        "most", "most nats of a closed unit", "least nats of an open one",
    )  # fmt: skip
    rows = (
        (
            row["rank"], row["bound"], row["starts"], row["minima"], row["fewest_open"],
            row["most_open"], f"{row['most_nats_of_a_closed_unit']:.3g}",
            "" if (least := row["least_nats_of_an_open_unit"]) is None else f"{least:.3g}",
        )
        for row in body["rows"]
    )  # fmt: skip
    shapes = (
        (omega, f"{shape['from_l1']:.3f}", f"{shape['from_l0']:.3f}")
        for omega, shape in rho["shapes"].items()
    )
    heads_of_rho = ("omega", "most from abs. mu", "most from the count, at abs. mu from 0.05 on")
    over = max(row["most_open"] - row["rank"] for row in body["rows"])
    closed = max(row["most_nats_of_a_closed_unit"] for row in body["rows"])
    return f"""
## Quadratic data terms: Propositions 1 and 3

Bound (14) of {body["units"]} units, gamma {body["gamma"]:g}, for random A of known rank and targets
that it can reach, minimised in mu with the best variance put in (eq. 17), from random starts. A
start counts as a minimum if the second derivative is positive in every direction among the open
units.

{table(heads, rows)}

Proposition 3 allows rank + 1 open units. The most seen is rank {over:+d}. Proposition 1: the
largest information in a closed unit is {closed:g} nats, for its best variance is 0 with its mean,
so that the unit is a constant; every open unit holds information. Activations are standard normal
here.

## rho between the count and |mu|

{picture("rho at several omega", base, "rho")}

{table(heads_of_rho, shapes)}

As eq. 18 says: a large omega (a flat loss) gives |mu|. Towards the count it goes slowly: by a
logarithm.
"""


def _depth(body: Body, figures: Path, base: str) -> str:
    with figure(figures / "depth.svg", 2) as axes:
        for factor, label in ((True, "with L"), (False, "without")):
            rows = [row for row in body["rows"] if row["factor"] is factor]
            layers = [row["layers"] for row in rows]
            for axis, name in zip(axes, ("kept", "small"), strict=True):
                means, spreads = ([row[name][k] for row in rows] for k in ("mean", "spread"))
                axis.errorbar(layers, means, spreads, label=label, marker="o", ms=3, capsize=2)
        for axis, title in zip(axes, ("units kept (%)", "validation error (%)"), strict=True):
            axis.set_xscale("log", base=2)
            axis.set_title(title)
            axis.set_xlabel("hidden layers")
            axis.legend()
    lines = (
        (row["layers"], "with" if row["factor"] else "without",
         *(text(row[name]) for name in ("kept", "dense", "small")))
        for row in body["rows"]
    )  # fmt: skip
    heads = ("hidden layers", "L", "units kept (%)", "dense error (%)", "small error (%)")
    ends = {
        factor: [row["kept"]["mean"] for row in body["rows"] if row["factor"] is factor]
        for factor in (True, False)
    }
    shares = (f"{ends[f][0]:.0f} to {ends[f][-1]:.0f} %" for f in (True, False))
    with_factor, without = shares
    return f"""
## The factor L

Networks of {body["width"]} units a layer on the digits, gamma of eq. 9 the same at every depth,
{body["gamma_eq9"]:g}: with the factor L on the data term, and without. Errors are on validation
images; mean ± standard deviation [least, largest] of {body["rows"][0]["kept"]["n"]} seeds.

{picture("units kept and error by depth, with L and without", base, "depth")}

{table(heads, lines)}

From the shallowest to the deepest network the share of units kept goes from {with_factor} with L,
and from {without} without. L times the data term is a gamma divided by L: one gamma of eq. 9 is a
gentler penalty the deeper the network, one gamma of ours is the same.
"""


def _prices(body: Body, figures: Path, base: str) -> str:
    ratios = sorted({row["ratio"] for row in body["rows"]})
    with figure(figures / "prices.svg", width=4.4) as (axis,):
        for ratio in ratios:
            rows = [row for row in body["rows"] if row["ratio"] == ratio]
            sizes, errors = ([row[k]["mean"] for row in rows] for k in ("r_W", "validation"))
            axis.plot(sizes, errors, marker="o", ms=3, label=f"price ratio {ratio:g}")
        plain_log(axis, "x")
        axis.set_xlabel("r_W (%)")
        axis.set_title("validation error (%)")
        axis.legend()
    rows = []
    for level in body["equal_error"]:
        sizes = level["r_W"]
        best = min(sizes, key=sizes.get)
        cells = (f"{sizes[f'{ratio:g}']:.2f}" for ratio in ratios)
        rows.append((f"{level['validation']:.2f}", *cells, best, f"{sizes['1'] / sizes[best]:.2f}"))
    heads = ("validation error (%)", *(f"ratio {ratio:g}" for ratio in ratios))
    heads += ("best ratio", "one gamma, of the best")
    return f"""
## One gamma against a gamma for each layer

`{body["recipe"]}` with the first layer's gamma a multiple of the second's, their product fixed;
ratio 1 is one gamma. r_W in percent at equal error, read off the lines between gammas (means of
{body["rows"][0]["r_W"]["n"]} seeds).

{picture("error against size for several ratios of gammas", base, "prices")}

{table(heads, rows)}
"""


CHAPTERS = {
    "quadratics": _quadratics,
    "course": course,
    "depth": _depth,
    "prices": _prices,
}

"""A picture of a network with its sites, as SVG: layers from top to bottom, a line for every site.

A line goes from the layers that write a site's units (filled) to those that read them (open), and
is as thick as what stays of the site. Layers whose units stay whole carry the reason as a tooltip.
"""

import re
from collections.abc import Sequence
from html import escape as escaped

from vibnet.cost import Layer
from vibnet.surgery.plan import Plan

ROW, LANE, TOP, LEFT = 22, 16, 46, 14
TEXT = 7.2  # of a character, in the font's units
BAR = 90
COLOURS = ("#0969a2", "#b4541a", "#2c7a45", "#8a3f8f", "#7a6a1c", "#4d5fb0", "#a03355", "#3c7d82")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
INK, FAINT, SAVED = "#24292f", "#c9ced4", "#9bc3dd"


def safe(text: str) -> str:
    """A text as XML can hold it: control characters as question marks."""
    return escaped(CONTROL.sub("?", text))


def picture(plan: Plan, layers: Sequence[Layer] = ()) -> str:
    """The picture of a plan; with the layers' times, a bar of them stands beside each.

    Args:
        plan: what `vibnet.plan` returned, or a plan with units left out.
        layers: what `vibnet.cost.layers` found, or none.

    Returns:
        An SVG document, as text.
    """
    rows = _rows(plan, layers)
    number = {name: k for k, name in enumerate(rows)}
    timed = {layer.name: layer for layer in layers}
    spans = {name: _span(plan, name, number) for name in plan.sizes}
    lanes = _lanes(spans)
    first = LEFT + TEXT * max(map(len, rows), default=1) + 24 + (BAR + 84 if layers else 0)
    head = _head(plan, layers)
    width = first + LANE * (1 + max(lanes.values(), default=0)) + 40
    width = max(width, 2 * LEFT + TEXT * len(head))
    height = TOP + ROW * len(rows) + 20
    body = [f'<text x="{LEFT}" y="24">{safe(head)}</text>']
    longest = max((layer.seconds for layer in layers if layer.name in number), default=0.0)
    for name, k in number.items():
        body.append(_row(plan, name, TOP + ROW * k))
        if (layer := timed.get(name)) is not None:
            body.append(_bar(layer, longest, first - BAR - 84, TOP + ROW * k))
    for site, lane in lanes.items():
        body.append(_line(plan, site, number, first + LANE * lane, COLOURS[lane % len(COLOURS)]))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}" font-family="ui-monospace, monospace" '
        f'font-size="12" fill="{INK}">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _rows(plan: Plan, layers: Sequence[Layer]) -> list[str]:
    """The layers that write or read, or stay whole: in the order of calls, where that is known."""
    named = [name for site in plan.sizes for name in (*plan.writers[site], *plan.readers[site])]
    named += plan.pinned
    known = [layer.name for layer in layers if layer.name in set(named)]
    return list(dict.fromkeys([*known, *named]))


def _span(plan: Plan, site: str, number: dict[str, int]) -> tuple[int, int]:
    """The first and the last row of a site."""
    rows = [number[name] for name in (*plan.writers[site], *plan.readers[site])]
    return min(rows, default=0), max(rows, default=0)


def _lanes(spans: dict[str, tuple[int, int]]) -> dict[str, int]:
    """A lane for every site: the first that no other one has in these rows."""
    taken: list[int] = []  # the last row of every lane
    out: dict[str, int] = {}
    for site, (top, bottom) in sorted(spans.items(), key=lambda item: item[1]):
        lane = next((k for k, last in enumerate(taken) if last < top), len(taken))
        taken[lane : lane + 1] = [bottom]
        out[site] = lane
    return out


def _head(plan: Plan, layers: Sequence[Layer]) -> str:
    told = [f"{100 * share:.1f} % of the {name}" for name, share in plan.cuttable.items()]
    ms = f", {1000 * sum(layer.seconds for layer in layers):.3f} ms a forward" if layers else ""
    what = f"{_many(len(plan.sizes), 'site')}, {_many(len(plan.pinned), 'layer')} whole{ms}"
    return what + (f"; sites reach {', '.join(told)}" if told else "")


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _row(plan: Plan, name: str, y: float) -> str:
    reason = plan.pinned.get(name, "")
    colour = ' fill="#8b939b"' if reason else ""
    title = f"<title>{safe(reason)}</title>" if reason else ""
    shown = safe(name or "the model itself")
    return f'<text x="{LEFT}" y="{y + 4}"{colour}>{shown}{title}</text>'


def _bar(layer: Layer, longest: float, x: float, y: float) -> str:
    whole = BAR * layer.seconds / longest if longest else 0.0
    title = (
        f"<title>{safe(layer.kind)}: {layer.weights:,} weights, {layer.macs:,.0f} multiply-adds, "
        f"{100 * layer.cuttable:.0f} % of them in sites</title>"
    )
    return (
        f'<g><rect x="{x:.1f}" y="{y - 5}" width="{whole:.1f}" height="9" fill="{FAINT}"/>'
        f'<rect x="{x:.1f}" y="{y - 5}" width="{whole * layer.cuttable:.1f}" height="9" '
        f'fill="{SAVED}"/>'
        f'<text x="{x + BAR + 6:.1f}" y="{y + 4}" font-size="10">{1000 * layer.seconds:.3f} ms'
        f"</text>{title}</g>"
    )


def _line(plan: Plan, site: str, number: dict[str, int], x: float, colour: str) -> str:
    kept, size = len(plan.kept.get(site, range(plan.sizes[site]))), plan.sizes[site]
    top, bottom = (TOP + ROW * k for k in _span(plan, site, number))
    ungated = plan.ungated.get(site, "")
    told = f"{site}: {kept} of {size} units" + (f"; no gate: {ungated}" if ungated else "")
    dashes = ' stroke-dasharray="4 3"' if ungated else ""
    marks = [
        f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{colour}" '
        f'stroke-width="{1 + 3 * kept / size:.2f}"{dashes}/>'
    ]
    for names, fill in ((plan.readers[site], "#ffffff"), (plan.writers[site], colour)):
        marks += [
            f'<circle cx="{x}" cy="{TOP + ROW * number[name]}" r="4" fill="{fill}" '
            f'stroke="{colour}" stroke-width="1.5"/>'
            for name in names
        ]
    return f"<g><title>{safe(told)}</title>{''.join(marks)}</g>"

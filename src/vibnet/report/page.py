"""One page of a run: a single HTML file that needs nothing else, and runs nothing."""

from pathlib import Path
from typing import Any

from vibnet.report import charts
from vibnet.report.record import PAGE, Recorded
from vibnet.report.render import render
from vibnet.report.rows import grain, rows, verdict
from vibnet.surgery.files import write

TEMPLATE = "page.html"


def write_page(recorded: Recorded) -> Path:
    """Write `report.html` into the folder of a run.

    Raises:
        ConfigError: the extra `report` is not installed.
        ArtefactError: the record has wrong fields.
    """
    target = recorded.folder / PAGE
    write(target, page(recorded).encode())
    return target


def page(recorded: Recorded) -> str:
    """The page as text. Everything from the record is escaped.

    Raises:
        ConfigError: the extra `report` is not installed.
        ArtefactError: the record has wrong fields.
    """
    return render(TEMPLATE, lambda: _content(recorded), str(recorded.folder))


def _content(recorded: Recorded) -> dict[str, Any]:
    run = recorded.run
    content: dict[str, Any] = {
        "run": run,
        "done": recorded.done,
        "verdict": verdict(recorded),
        "grain": grain(recorded),
        "curves": charts.curves(run["history"], run["metric"], recorded.held_out),
        "held_out": recorded.held_out,
        "settings": [(name, _plain(value)) for name, value in sorted(run["settings"].items())],
        "options": [(name, _plain(value)) for name, value in sorted(run["options"].items())],
        "published": run["notes"].get("published") or {},
        "host": run["host"],
        "export": recorded.export,
    }
    if recorded.done:
        content |= {
            "rows": rows(recorded),
            "sites": [_site(site) for site in run["sites"]],
            "pinned": sorted(run["pinned"].items()),
            "histograms": charts.histograms(run["snr"]),
            "ours": _ours(run),
        }
    return content


def _site(site: dict[str, Any]) -> dict[str, Any]:
    share = 100 * site["after"] / site["before"] if site["before"] else 0.0
    flow = {key: ", ".join(site[key]) for key in ("writers", "readers")}
    return {**site, **flow, "share": f"{share:.2f}"}


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value) or "none"


def _ours(run: dict[str, Any]) -> tuple[float, ...]:
    """What stands beside published figures: r_W, millions of multiply-adds, r_N, test error."""
    ratios = run["ratios"]
    return ratios["r_W"], ratios["macs"] / 1e6, ratios["r_N"], run["test"]["small"]

"""One page of a sweep: error against size, beside the figures in print."""

import json
from pathlib import Path
from typing import Any

from vibnet.errors import ArtefactError
from vibnet.report import charts
from vibnet.report.render import render
from vibnet.surgery.files import write

RECORD, PAGE, TEMPLATE = "frontier.json", "frontier.html", "frontier.html"
SCHEMA, VERSION = "vibnet.frontier", 1
SIZES = ("r_W", "macs", "r_N")


def write_frontier(folder: Path, body: dict[str, Any]) -> Path:
    """Write `frontier.json` and `frontier.html` into the folder of a sweep; gives the page's path.

    Args:
        folder: of the sweep.
        body: "name", "about", "command", "published" and "rows": per gamma what
            `vibnet.recipes.summary.summary` gives, and "runs": the figures of every seed.

    Raises:
        ConfigError: the extra `report` is not installed.
        ArtefactError: the rows have wrong fields.
    """
    body = {"schema": SCHEMA, "version": VERSION} | body
    page = render(TEMPLATE, lambda: _content(body), str(folder))
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / RECORD, (json.dumps(body, indent=1) + "\n").encode())
    write(folder / PAGE, page.encode())
    return folder / PAGE


def read_frontier(folder: Path) -> dict[str, Any]:
    """What a sweep came to.

    Raises:
        ArtefactError: there is none, or it is damaged.
    """
    path = folder / RECORD
    try:
        body: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtefactError(f"there is no {RECORD} in {folder}.") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} is truncated or no JSON ({error}).") from error
    if not isinstance(body, dict) or (body.get("schema"), body.get("version")) != (SCHEMA, VERSION):
        raise ArtefactError(f"{path} is no {SCHEMA} of version {VERSION}.")
    return body


def _content(body: dict[str, Any]) -> dict[str, Any]:
    held_out = all("validation" in row for row in body["rows"])
    error = "validation" if held_out else "test"
    points = [
        {name: [run[name] for run in row["runs"]] for name in SIZES}
        | {"error": [run[error] for run in row["runs"]]}
        for row in body["rows"]
    ]
    shown = [*SIZES, *(["validation"] if held_out else []), "test"]
    return {
        "name": body["name"],
        "about": body["about"],
        "command": body["command"],
        "published": body["published"],
        "held_out": held_out,
        "chart": charts.frontier(points, body["published"]),
        "rows": [
            {
                "gamma": brief(row["gamma"]),
                "n": row["n"],
                "cells": [text(row[name]) for name in shown],
            }
            for row in body["rows"]
        ],
    }


def text(cell: dict[str, Any]) -> str:
    """Mean ± standard deviation [least, largest]; of a single value that value alone.

    >>> text({"mean": 1.0, "spread": 0.125, "best": 0.9, "worst": 1.2, "n": 3})
    '1.00 ± 0.12 [0.90, 1.20]'
    """
    if cell["n"] == 1:
        return short(cell)
    low, high = (f"{cell[name]:.{_digits(cell)}f}" for name in ("best", "worst"))
    return f"{short(cell)} [{low}, {high}]"


def brief(value: float) -> str:
    """A number as short as it can be and still be no other.

    >>> brief(1e-4), brief(1.2345678e-3)
    ('0.0001', '0.0012345678')
    """
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def short(cell: dict[str, Any]) -> str:
    """Mean ± standard deviation; of a single value that value alone."""
    names = ("mean", "spread") if cell["n"] > 1 else ("mean",)
    return " ± ".join(f"{cell[name]:.{_digits(cell)}f}" for name in names)


def _digits(cell: dict[str, Any]) -> int:
    mean = cell["mean"]
    return 0 if mean >= 100 else 2 if mean >= 1 else 3 if mean >= 0.1 else 4

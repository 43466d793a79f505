"""A reproduced table as text for a document."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vibnet.errors import ArtefactError
from vibnet.report.frontier import text
from vibnet.surgery.files import write

COLUMNS = {"r_W": "r_W (%)", "macs": "MACs (M)", "r_N": "r_N (%)", "test": "test error (%)"}


def write_table(folder: Path, body: Mapping[str, Any]) -> Path:
    """Write a table's JSON and its text into a folder; gives the text's path."""
    shown = markdown(body)
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(body, indent=1) + "\n"
    write(folder / f"{body['name']}.json", content.encode())
    write(folder / f"{body['name']}.md", shown.encode())
    return folder / f"{body['name']}.md"


def markdown(body: Mapping[str, Any]) -> str:
    """A table in Markdown: printed rows, ours with mean, spread and extremes, and what reaches.

    Args:
        body: what `vibnet.recipes.tables.result` gives.
    """
    lines = [f"| row | n | {' | '.join(COLUMNS.values())} | structures |", "| --- " * 7 + "|"]
    for method, row in body["published"].items():
        cells = ["" if value is None else f"{value:g}" for value in row]
        lines.append(f"| {method}, in print | 1 | {' | '.join(cells)} | |")
    sampled = []
    for name, row in body["rows"].items():
        if "draws" in row:
            sampled += [
                f"- {n} draws at test, n = {cell['n']}: {text(cell)} %"
                for n, cell in row["draws"].items()
            ]
            continue
        cells = [text(row[column]) for column in COLUMNS]
        kept = ", ".join(row.get("structures", {}).values())
        star = " *" if row["extra"] else ""
        lines.append(f"| {name}{star} | {row['test']['n']} | {' | '.join(cells)} | {kept} |")
    out = [*_made_otherwise(body), *lines, "", "Rows:", ""]
    for name, row in body["rows"].items():
        star = " *" if row["extra"] else ""
        parts = [row["about"], *_against(row), *_last_cut(row), *_reached(row)]
        out.append(f"- {name}{star}: {'. '.join(parts)}")
    if sampled:
        out += ["", "Noise at test, its mean over class probabilities:", "", *sampled]
    return "\n".join(out) + "\n"


def _made_otherwise(body: Mapping[str, Any]) -> list[str]:
    """What is not as the table's own settings have it, above the table."""
    parts = [f"{name}={value}" for name, value in body.get("changed", {}).items()]
    parts += ["validation images held out of training"] if body.get("held_out") else []
    return [f"Not with the table's own settings: {', '.join(parts)}.", ""] if parts else []


def _against(row: Mapping[str, Any]) -> list[str]:
    """How its errors differ from another row's."""
    if (found := row.get("against")) is None:
        return []
    wide, what = "", ""
    if found["half"] is not None:
        wide, what = f" ± {found['half']:.2f}", "95 % interval, "
    return [
        f"Test error less that of {found['row']}, paired by seed: {found['mean']:+.2f}{wide} "
        f"points ({what}n = {found['n']})"
    ]


def _last_cut(row: Mapping[str, Any]) -> list[str]:
    """What the cut to a budget took, seed by seed."""
    if (cut := row.get("live_units_cut")) is None:
        return []
    return [f"Units in use that the last cut took: {', '.join(map(str, cut.values()))}"]


def _reached(row: Mapping[str, Any]) -> list[str]:
    if "seeds_that_reach" not in row:
        return []
    mean = "the mean does" if row["mean_reaches"] else "the mean does not"
    return [
        f"{row['seeds_that_reach']} of {row['test']['n']} seeds reach all of VIBNet's printed "
        f"figures at once, {mean}"
    ]


def check_place(document: Path, name: str) -> tuple[str, str, str]:
    """What stands before, between and after the marks of a table in a document.

    Raises:
        ArtefactError: the document cannot be read as UTF-8, or does not have each mark once.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
    try:
        found = document.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtefactError(f"{document} cannot be read: {error}.") from error
    before, _, rest = found.partition(begin)
    between, _, after = rest.partition(end)
    if found.count(begin) != 1 or rest.count(end) != 1 or found.count(end) != 1:
        raise ArtefactError(
            f"{document} has no place for {name}, or more than one. Put the lines {begin} and "
            f"{end} where it goes, once each."
        )
    return before + begin, between, end + after


def put_into(document: Path, body: Mapping[str, Any]) -> None:
    """Put a table between its marks in a document: `<!-- table1 -->` and `<!-- end table1 -->`.

    Raises:
        ArtefactError: as `check_place`. Nothing has been written.
    """
    before, _, after = check_place(document, body["name"])
    table = f"\n\n{markdown(body)}\n"
    if "\r\n" in before + after:
        table = table.replace("\n", "\r\n")
    write(document, (before + table + after).encode())

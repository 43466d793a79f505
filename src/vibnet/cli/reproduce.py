"""`vibnet reproduce`: a table of the paper, run, controlled, and written down."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vibnet.cli import given, say
from vibnet.cli.follow import follow, gathered
from vibnet.cli.run import Device, Download, Sets
from vibnet.cli.sweep import Threads, numbers
from vibnet.errors import ConfigError
from vibnet.recipes import tables
from vibnet.recipes.grid import Point
from vibnet.report.frontier import short
from vibnet.report.tables import COLUMNS, check_place, put_into, write_table

Jobs = Annotated[
    int | None, typer.Option(min=1, help="Runs at a time, a process each; one a core by default.")
]


def reproduce(
    table: Annotated[str | None, typer.Argument(help="table1 or table2.")] = None,
    rows: Annotated[
        str, typer.Option(metavar="ROW,ROW...", help="By default all; --rows help lists them.")
    ] = "",
    seeds: Annotated[str, typer.Option(metavar="N,N...", help="A run each.")] = "0,1,2,3,4",
    changes: Sets = None,
    out: Annotated[Path | None, typer.Option(help="By default runs/<table>.")] = None,
    document: Annotated[
        Path | None, typer.Option(help="Put the table between its marks in this document too.")
    ] = None,
    jobs: Jobs = None,
    threads: Threads = 1,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Hold the validation images out of training.")
    ] = False,
    device: Device = "cpu",
    download: Download = False,
) -> None:
    """Run a table of the paper: VIBNet's row over seeds, its controls, its deterministic twins.

    The same command goes on where it stopped. Writes JSON and the table as text.
    """
    if table is None:
        raise ConfigError(f"reproduce: name a table: {', '.join(tables.TABLES)}.")
    of = tables.table(table)
    if rows == "help":
        say.table(("row", "is"), ((name, entry.about) for name, entry in of.entries.items()))
        return
    wanted = given.changes(changes or [])
    if "seed" in wanted:
        raise ConfigError("reproduce sets seed itself: leave --set seed= out, and give --seeds.")
    chosen = [row.strip() for row in rows.split(",")] if rows else list(of.entries)

    def points(names: list[str], asked: list[int]) -> dict[str, list[Point]]:
        return tables.points(
            of,
            names,
            asked,
            wanted,
            final=not held_out,
            device=given.device(device),
            download=download,
        )

    asked = [int(n) for n in numbers("seeds", seeds, whole=True)]
    runs = points(chosen, asked)
    if document is not None:
        check_place(document, of.name)
    folder = out or Path("runs") / table
    command = _command(table, rows, seeds, wanted, held_out, device, threads)
    every = [point for of_row in runs.values() for point in of_row]
    more = _more(jobs, document, download)
    rows_of = [n for n, e in of.entries.items() if not set(e.changes) & set(wanted)]
    all_rows = points(rows_of, sorted({*asked, *_seeds_in(folder, of)}))
    others = [point for of_row in all_rows.values() for point in of_row]
    failures = follow(every, folder, jobs or os.cpu_count() or 1, threads, command, more, others)
    found, damaged = gathered(others, folder, every)
    body = _result(of, all_rows, found) | {"command": command}
    body |= {"changed": wanted, "held_out": held_out}
    _finish(body, folder, document, failures + damaged)


def _finish(body: dict[str, Any], folder: Path, document: Path | None, failures: int) -> None:
    """Write what there is; a document only where nothing is missing from it."""
    if body["rows"]:
        path = write_table(folder, body)
        _show(body)
        say.line(f"\ntable:       {path}")
        if document is not None and not failures:
            put_into(document, body)
            say.line(f"document:    {document}")
    if failures:
        if document is not None:
            say.line(f"document:    {document} is left as it was, for not all runs are there.")
        raise typer.Exit(2)


def _seeds_in(folder: Path, of: tables.Table) -> set[int]:
    """The seeds that former calls have run there."""
    names = (path.name.rpartition(",seed=") for path in folder.glob("*,seed=*"))
    written = {seed for row, _, seed in names if row in of.entries}
    return {int(seed) for seed in written if seed.isascii() and seed.isdecimal()}


def _result(
    of: tables.Table, runs: dict[str, list[Point]], found: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The figures of all rows that are over, those of former calls too."""
    bodies: dict[str, dict[int, Any]] = {}
    for row, points in runs.items():
        bodies[row] = {int(p.changes["seed"]): found[p.name] for p in points if p.name in found}
    return tables.result(of, bodies)


def _command(
    table: str,
    rows: str,
    seeds: str,
    wanted: dict[str, str],
    held_out: bool,
    device: str,
    threads: int,
) -> str:
    words = ["vibnet", "reproduce", table, "--seeds", seeds]
    words += ["--rows", rows] if rows else []
    for name, value in wanted.items():
        words += ["--set", f"{name}={value}"]
    words += ["--held-out"] if held_out else []
    words += ["--device", device] if device != "cpu" else []
    words += ["--threads", str(threads)] if threads != 1 else []
    return shlex.join(words)


def _more(jobs: int | None, document: Path | None, download: bool) -> list[str]:
    words = ["--jobs", str(jobs)] if jobs else []
    words += ["--document", str(document)] if document is not None else []
    return words + (["--download"] if download else [])


def _show(body: dict[str, Any]) -> None:
    printed = (
        [f"{name}, in print", "1", *("" if v is None else f"{v:g}" for v in row)]
        for name, row in body["published"].items()
    )
    ours = (
        [name, str(row["test"]["n"]), *(short(row[column]) for column in COLUMNS)]
        for name, row in body["rows"].items()
        if "draws" not in row
    )
    say.line()
    say.table(("row", "n", *COLUMNS.values()), [*printed, *ours], range(1, 6))

"""`vibnet information`: the paper's analysis, run, and its document."""

import json
import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from vibnet.analysis.experiments import EXPERIMENTS
from vibnet.cli import say
from vibnet.errors import ArtefactError, ConfigError
from vibnet.report.extra import check_extra
from vibnet.report.information import TITLE
from vibnet.report.information import document as document_of
from vibnet.surgery.files import write


def information(
    document: Annotated[Path, typer.Option(help="The document.")] = Path("information.md"),
    only: Annotated[
        str, typer.Option(metavar="NAME,NAME...", help=f"Of {', '.join(EXPERIMENTS)}.")
    ] = "",
    again: Annotated[
        bool, typer.Option("--again", help="Make results that are there anew.")
    ] = False,
) -> None:
    """Run the paper's analysis on quadratics and digits, and write a document with figures.

    Results and figures go into a folder beside the document, of its name without ".md". What is
    there is not made again.
    """
    if document.suffix != ".md":
        raise ConfigError(f"information: the document is a .md file, got {str(document)!r}.")
    wanted = only.split(",") if only else list(EXPERIMENTS)
    unknown = [name for name in wanted if name not in EXPERIMENTS]
    if unknown:
        raise ConfigError(
            f"information: --only takes {', '.join(EXPERIMENTS)}, got {', '.join(unknown)}."
        )
    folder = document.with_suffix("")
    _check(document, folder)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for name in wanted:
        path = folder / f"{name}.json"
        if again or not path.exists():
            say.line(f"{name}:")
            body = EXPERIMENTS[name](lambda line: say.line(f"  {line}"))
            folder.mkdir(parents=True, exist_ok=True)
            write(path, (json.dumps(_rounded(body)) + "\n").encode())
    found = {
        name: _read(path) for name in EXPERIMENTS if (path := folder / f"{name}.json").exists()
    }
    command = shlex.join(["vibnet", "information", "--document", os.fspath(document)])
    try:
        content = document_of(found, folder, folder.name, command)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"a result in {folder} has wrong fields ({error!r}). Make it anew with --again."
        ) from error
    write(document, content.encode())
    say.line(f"document:    {document}")


def _check(document: Path, folder: Path) -> None:
    """Refuse to write over what is not ours, before the work."""
    check_extra("information", "matplotlib")  # its figures come last
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"information: {folder}, the place of its results, is a file.")
    if document.is_dir():
        raise ConfigError(f"information: {document} is a folder. Name a file.")
    if document.exists() and not document.read_bytes().startswith(TITLE.encode()):
        raise ConfigError(
            f"information: {document} holds something else. Name another document: nothing is "
            f"overwritten."
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{path} is truncated or no JSON ({error}). Make it anew with --again."
        ) from error


def _rounded(value: Any) -> Any:
    """Numbers to five digits: files that a person can keep."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    return value

"""The command: its parts, and the one door that errors leave by."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vibnet.cli import say
from vibnet.cli.deploy import bench, export
from vibnet.cli.information import information
from vibnet.cli.look import plan, recipes, report
from vibnet.cli.reproduce import reproduce
from vibnet.cli.run import run
from vibnet.cli.suggest import suggest
from vibnet.cli.sweep import sweep
from vibnet.errors import DataError, VibnetError
from vibnet.graph.capture.capture import place_of

DEBUG = "--debug"


class _Group(TyperGroup):
    """Takes --debug anywhere, and turns our errors into one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if DEBUG in args:
            args = [DEBUG, *(word for word in args if word != DEBUG)]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VibnetError as error:
            if ctx.params.get("debug"):
                raise
            say.error(error)
            if isinstance(error, DataError):
                say.line("Set VIBNET_DATA to the folder of the data sets, or add --download.")
            raise typer.Exit(2) from None
        except Exception as error:
            theirs = type(error).__module__.partition(".")[0] in ("typer", "click")
            if theirs or ctx.params.get("debug"):
                raise
            say.error(_unexpected(error))
            raise typer.Exit(2) from None


def _unexpected(error: Exception) -> Exception:
    """What went wrong outside of this package: on the disk, or in a person's own model or data."""
    if isinstance(error, OSError) and error.strerror:
        return type(error)(f"{error.strerror}: {error.filename or 'while writing'}.")
    first = next((line for line in str(error).splitlines() if line.strip()), "no text")
    return RuntimeError(
        f"{type(error).__name__} at {place_of(error)}: {first} (--debug shows the way there)"
    )


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
for command in (run, suggest, sweep, reproduce, information, recipes, plan, bench, export, report):
    app.command()(command)


def _version(asked: bool) -> None:
    if asked:
        say.line(f"vibnet {version('vibnet')}, torch {version('torch')}")
        raise typer.Exit


@app.callback()
def main(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show where an error comes from.")] = False,
    _shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make a PyTorch model smaller: learn which units matter, and take the others out."""

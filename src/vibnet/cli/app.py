"""The command: its parts, and the one door that errors leave by."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vibnet.cli import say
from vibnet.cli.deploy import bench, export
from vibnet.cli.look import plan, recipes, report
from vibnet.cli.run import run
from vibnet.errors import DataError, VibnetError

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


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
for command in (run, recipes, plan, bench, export, report):
    app.command()(command)


@app.callback()
def main(
    debug: Annotated[bool, typer.Option(DEBUG, help="Show where an error comes from.")] = False,
) -> None:
    """Make a PyTorch model smaller: learn which units matter, and take the others out."""

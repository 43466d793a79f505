"""What is seen while a run goes on: a bar for every phase, or lines where nobody watches."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from vibnet.config import Settings
from vibnet.train.phases import Record

NAMES = {"dense": "dense", "gate": "with gates", "tune": "after the cut"}
SHORT = {"dense": "dense", "gate": "gates", "tune": "cut"}  # a bar's line fits into 80 columns
LINES = 10  # of a phase, where there is no terminal


class Watch:
    """Shows every epoch; a context, and a function of a record.

    Args:
        console: where to.
        settings: of the run: how many epochs there are.
        metric: name of what validation counts.
        held_out: whether it is counted on data that are not trained on.
    """

    def __init__(self, console: Console, settings: Settings, metric: str, held_out: bool) -> None:
        self.console, self.settings = console, settings
        where = "validation" if held_out else "training images"
        self.metric = metric if console.is_terminal else f"{where} {metric}"
        self.head = f"{metric}: of {'held-out validation data' if held_out else where}"
        self.tasks: dict[str, TaskID] = {}
        self.last: Record | None = None
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TimeLeft(compact=True),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> "Watch":
        if self.console.is_terminal:
            self.console.print(self.head)
        self.progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.progress.stop()

    def __call__(self, record: Record) -> None:
        """Show an epoch that is over."""
        self.last = record
        epochs: int = getattr(self.settings, f"{record.phase}_epochs")
        numbers = self.numbers(record)
        if not self.console.is_terminal:
            due = record.epoch * LINES // epochs > (record.epoch - 1) * LINES // epochs
            if due:
                width = len(str(epochs))
                text = f"{NAMES[record.phase]:13} {record.epoch:{width}}/{epochs}  {numbers}"
                self.console.print(text, soft_wrap=True)
            return
        if record.phase not in self.tasks:
            self.tasks[record.phase] = self.progress.add_task(
                SHORT[record.phase], total=epochs, completed=record.epoch - 1, numbers=""
            )
        self.progress.update(self.tasks[record.phase], completed=record.epoch, numbers=numbers)

    def numbers(self, record: Record) -> str:
        """The figures of an epoch in one line."""
        text = f"{self.metric} {record.validation:.2f}"
        if record.phase == "gate":
            units = sum(record.kept.values())
            text += f", units {units:,}, MACs {_short(record.macs)}, nats {record.nats:.0f}"
        return text


def _short(number: float) -> str:
    """A count in at most four digits.

    >>> [_short(n) for n in (950, 50_200, 2_290_000, 3.1e9)]
    ['950', '50.2k', '2.29M', '3.1G']
    """
    for unit, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= factor:
            return f"{number / factor:.3g}{unit}"
    return f"{number:.0f}"

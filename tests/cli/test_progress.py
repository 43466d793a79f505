import io
import re

from recorded import record
from rich.console import Console

from vibnet.cli.progress import Watch
from vibnet.config import Settings
from vibnet.train.phases import Record

SETTINGS = Settings(dense_epochs=3, gate_epochs=40)


def shown(records, terminal, held_out=True):
    target = io.StringIO()
    console = Console(file=target, force_terminal=terminal, width=120, color_system=None)
    with Watch(console, SETTINGS, "error (%)", held_out) as watch:
        for one in records:
            watch(Record(**one))
    return target.getvalue(), watch


def test_where_nobody_watches_a_phase_is_ten_lines():
    text, _ = shown([{**record(1), "epoch": n} for n in range(1, 41)], terminal=False)
    lines = text.splitlines()
    assert len(lines) == 10
    assert lines[-1].split()[:3] == ["with", "gates", "40/40"]
    assert "units 7, MACs 100, nats 100" in lines[0]


def test_a_short_phase_shows_every_epoch_and_no_units_before_the_gates():
    text, _ = shown([{**record(n, "dense")} for n in (1, 2, 3)], terminal=False)
    assert len(text.splitlines()) == 3
    assert "units" not in text
    assert "validation error (%) 10.00" in text


def test_a_terminal_gets_a_bar_for_every_phase():
    text, watch = shown([record(1, "dense"), record(1), record(2)], terminal=True)
    assert [task.completed for task in watch.progress.tasks] == [1, 2]
    assert "2/40" in text
    assert "error (%): of held-out validation data" in text
    line = [x for x in text.replace("\r", "\n").splitlines() if " 2/40" in x][-1]
    assert len(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line).rstrip()) <= 80
    assert watch.last.epoch == 2


def test_training_images_are_called_so():
    text, _ = shown([record(1, "dense")], terminal=False, held_out=False)
    assert "training images error (%) 10.00" in text
    text, _ = shown([record(1, "dense")], terminal=True, held_out=False)
    assert "error (%): of training images" in text

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def output_of(name):
    """What an example prints; the installed package or the caller's PYTHONPATH is used."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def row(text, name):
    """The two numbers of a row of the table: dense, pruned."""
    found = re.search(rf"^{re.escape(name)} +([\d,.]+) +([\d,.]+)$", text, re.MULTILINE)
    assert found, f"no row {name!r} in:\n{text}"
    return [float(number.replace(",", "")) for number in found.groups()]


def test_the_digits_network_loses_four_fifths_of_its_weights_and_keeps_its_answers():
    text = output_of("digits.py")
    dense, small = row(text, "weights")
    assert dense == 64 * 300 + 300 * 100 + 100 * 10
    assert small <= dense / 5
    before, after = row(text, "test error (%)")
    assert before <= 5
    assert after <= before + 1.5
    for name in ("multiply-adds", "memory (bytes)"):
        dense, small = row(text, name)
        assert small < dense


def test_a_network_of_ones_own_is_cut_saved_and_loaded_with_the_same_answers():
    text = output_of("own_model.py")
    before, after = map(int, re.search(r"cut: (\d+) -> (\d+) parameters", text).groups())
    assert after < before
    assert float(re.search(r"answers: (\S+)", text).group(1)) < 1e-5

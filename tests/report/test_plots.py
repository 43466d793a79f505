import sys

import pytest

from vibnet.errors import ConfigError
from vibnet.report.plots import COLOURS, figure


def drawn(path):
    with figure(path, 2) as axes:
        axes[0].plot([1, 2], [3, 4], label="up")
        axes[1].plot([1, 2], [4, 3])
    return path.read_text()


def test_the_same_drawing_gives_the_same_bytes_in_colours_of_its_own(tmp_path):
    first = drawn(tmp_path / "a" / "one.svg")
    assert first == drawn(tmp_path / "b" / "one.svg")
    assert first.startswith("<?xml")
    assert COLOURS[0] in first
    assert "Date" not in first


def test_nothing_is_written_where_drawing_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), figure(tmp_path / "one.svg"):
        raise ZeroDivisionError
    assert not (tmp_path / "one.svg").exists()


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with (
        pytest.raises(ConfigError, match=r"not installed.*vibnet\[report\]"),
        figure(tmp_path / "one.svg"),
    ):
        pass

import pytest
from recorded import written

from vibnet.cli import say
from vibnet.errors import ConfigError
from vibnet.report import read

MARKUP = "[red]name[/] [link=x] :smile:"


def test_an_error_is_one_line_on_the_other_door(capsys):
    say.error(ConfigError("first\n  second " + "long " * 60))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: first second long")


@pytest.mark.parametrize("speak", [say.line, say.warning])
def test_markup_in_a_text_is_only_text(speak, capsys):
    speak(MARKUP)
    assert MARKUP in "".join(capsys.readouterr())


def test_markup_in_a_table_is_only_text(capsys):
    say.table((MARKUP, "n"), [(MARKUP, "1")], (1,))
    assert capsys.readouterr().out.count(MARKUP) == 2


def test_the_last_table_has_sites_and_figures(tmp_path, capsys):
    say.before_and_after(read(written(tmp_path)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fc", "8", "5"] in lines
    assert ["test", "error", "(%)", "2.00", "2.50", "+0.50"] in lines


def test_no_digit_is_cut_off_where_a_table_is_wider_than_the_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    heads = ("gamma", "runs", "r_W (%)", "MACs (M)", "r_N (%)", "validation (%)", "test (%)")
    cells = ("0.00025", "2", *(f"1{k}.98 ± 0.4{k}" for k in range(5)))
    say.table(heads, [cells], range(7))
    words = capsys.readouterr().out.split()
    for cell in cells:
        assert set(cell.split()) <= set(words)

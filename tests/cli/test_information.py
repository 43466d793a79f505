import json

import pytest
from recorded import vibnet
from report.test_information import PRICES, QUADRATICS

from vibnet.cli import information


@pytest.fixture
def quick(monkeypatch):
    calls = []

    def made(name, body):
        def run(say):
            calls.append(name)
            say(f"{name} is under way")
            return body

        return run

    monkeypatch.setitem(information.EXPERIMENTS, "quadratics", made("quadratics", QUADRATICS))
    monkeypatch.setitem(information.EXPERIMENTS, "prices", made("prices", PRICES))
    return calls


def test_results_are_made_once_and_the_document_from_them(quick, tmp_path):
    document = tmp_path / "what.md"
    words = ("information", "--document", document, "--only", "quadratics,prices")
    first = vibnet(*words)
    assert first.exit_code == 0, first.output
    assert "quadratics is under way" in first.stdout
    assert quick == ["quadratics", "prices"]
    text = document.read_text()
    assert "](what/rho.svg)" in text
    assert (tmp_path / "what" / "rho.svg").exists()
    assert json.loads((tmp_path / "what" / "prices.json").read_text())["recipe"] == "toy"
    assert vibnet(*words).exit_code == 0
    assert document.read_text() == text
    assert len(quick) == 2
    assert vibnet(*words, "--again").exit_code == 0
    assert len(quick) == 4


def test_numbers_are_kept_to_five_digits():
    assert information._rounded({"a": [1.23456789, 2], "b": (1e-17 / 3, "x")}) == {
        "a": [1.2346, 2],
        "b": [3.3333e-18, "x"],
    }


def test_what_cannot_be_done_is_refused(quick, tmp_path):
    bad = vibnet("information", "--document", tmp_path / "x.txt")
    assert bad.exit_code == 2
    assert "is a .md file" in bad.stderr
    bad = vibnet("information", "--document", tmp_path / "x.md", "--only", "rho")
    assert bad.exit_code == 2
    assert "--only takes quadratics, course, depth, prices, got rho" in bad.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "quadratics.json").write_text("{")
    bad = vibnet("information", "--document", tmp_path / "x.md", "--only", "quadratics")
    assert bad.exit_code == 2
    assert "Make it anew with --again" in bad.stderr
    assert "Make it anew with --again" in bad.stderr
    (tmp_path / "x" / "quadratics.json").write_text("{}")
    bad = vibnet("information", "--document", tmp_path / "x.md", "--only", "quadratics")
    assert bad.exit_code == 2
    assert "has wrong fields (KeyError" in bad.stderr
    assert not quick


def test_nothing_of_another_is_written_over_and_that_is_said_first(quick, tmp_path):
    mine = tmp_path / "mine.md"
    mine.write_text("my notes")
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "taken").write_text("a file")
    for name, said in (
        ("mine.md", "holds something else"),
        ("folder.md", "is a folder"),
        ("taken.md", "is a file"),
    ):
        bad = vibnet("information", "--document", tmp_path / name, "--only", "quadratics")
        assert bad.exit_code == 2
        assert said in bad.stderr
    assert mine.read_text() == "my notes"
    assert not quick

import re

import pytest
import torch
from recorded import vibnet

SHORT = ("--set", "dense_epochs=3", "--set", "gate_lr=0.05", "--steps", "120")


@pytest.fixture(autouse=True)
def process_as_it_was():
    """The command flushes denormals and sets the threads of its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)


def suggested(*words):
    done = vibnet("suggest", "digits-mlp", *SHORT, *words)
    assert done.exit_code == 0, done.output
    return float(re.search(r"--set gamma=(\S+)", done.output).group(1))


def test_a_gamma_is_suggested_and_more_units_need_more_of_it():
    few, many = suggested("--close", "0.1"), suggested("--close", "0.9")
    assert 1e-7 < few < many < 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("digits-mlp", "--set", "gamma=1"), "leave --set gamma= out"),
        (("digits-mlp", "--close", "2"), "close must be between 0 and 1"),
        (("digits-mlp", "--close", "nan"), "close must be between 0 and 1"),
        (("digits-mlp", "--steps", "5"), "steps at least 10"),
        (("nothing",), "there is no recipe 'nothing'"),
        ((), "name a recipe"),
    ],
)
def test_what_cannot_be_suggested_is_one_line(words, said):
    done = vibnet("suggest", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1

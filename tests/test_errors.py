import inspect

import pytest

from vibnet import errors

BUILTIN = {
    "ConfigError": ValueError,
    "CaptureError": RuntimeError,
    "NoSitesError": ValueError,
    "PlanError": ValueError,
    "FoldError": ValueError,
    "VerificationError": RuntimeError,
    "ArtefactError": ValueError,
    "DataError": ValueError,
    "TrainingError": RuntimeError,
}


@pytest.mark.parametrize(("name", "builtin"), BUILTIN.items())
def test_an_error_is_ours_and_the_builtin_that_fits(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, errors.VibnetError)
    assert issubclass(error, builtin)
    with pytest.raises(builtin, match="what went wrong"):
        raise error("what went wrong")


def test_there_are_no_other_errors_and_each_says_what_it_is_for():
    found = {name: c for name, c in vars(errors).items() if inspect.isclass(c)}
    assert set(found) == {"VibnetError", *BUILTIN}
    assert all(c.__doc__ for c in found.values())


def test_the_root_is_no_builtin_that_other_code_catches():
    assert errors.VibnetError.__bases__ == (Exception,)

"""The transformers library, where it is installed."""

import pytest
from schemas import declare


def transformers():
    """The library; a test that asks for it is skipped without it."""
    pytest.importorskip("transformers")
    declare()
    return pytest.importorskip("transformers")

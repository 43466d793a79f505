import pytest

from vibnet.train import clock as module
from vibnet.train.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """The time, which only the test moves."""
    seconds = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: seconds[0])
    return seconds


def test_the_first_epoch_is_saved_and_then_one_when_the_time_is_over(now):
    clock = Clock(float("inf"), 20.0)
    clock.tick()
    assert clock.due
    clock.saved()
    for later, due in ((110.0, False), (119.9, False), (120.0, True)):
        now[0] = later
        clock.tick()
        assert clock.due is due
    clock.saved()
    assert not clock.due


def test_it_stops_before_an_epoch_as_long_as_the_longest_and_a_half_would_end_too_late(now):
    clock = Clock(10.0, 1e9)
    for later, over in ((104.0, False), (105.0, True)):
        now[0] = later
        clock.tick()
        assert clock.over is over
    assert clock.longest == 4.0

import matplotlib.figure
import pytest

from vibnet.report.ticks import plain_log


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([2.0, 20.0], {"2", "5", "10", "20"}),
        ([0.0003, 0.9], {"0.001", "0.01", "0.1", "1"}),
    ],
)
@pytest.mark.parametrize("which", ["x", "y"])
def test_labels_are_plain_numbers_fewer_on_a_long_axis(values, labels, which):
    made = matplotlib.figure.Figure()
    axis = made.subplots()
    axis.plot(values, values)
    plain_log(axis, which)
    made.canvas.draw()
    side = getattr(axis, f"{which}axis")
    low, high = side.get_view_interval()
    shown = [*side.get_majorticklabels(), *side.get_minorticklabels()]
    place = 0 if which == "x" else 1
    found = {t.get_text() for t in shown if low <= t.get_position()[place] <= high} - {""}
    assert found == labels


def test_a_single_value_has_a_scale_too():
    axis = matplotlib.figure.Figure().subplots()
    axis.plot([3.0, 3.0], [1.0, 2.0])
    plain_log(axis, "x")
    assert axis.get_xlim() == (1.5, 6.0)

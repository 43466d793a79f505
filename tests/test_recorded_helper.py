from recorded import WHOLE, short_run

from vibnet.report.record import ALWAYS, WHEN_DONE, read


def test_the_record_by_hand_has_the_fields_of_a_real_one(tmp_path):
    real = read(short_run(tmp_path / "run")[0]).run
    assert {*ALWAYS, *WHEN_DONE} <= set(WHOLE)
    for part in ("before", "host", "timing", "ratios", "test"):
        assert set(WHOLE[part]) <= set(real[part]), part
    assert set(WHOLE["history"][0]) == set(real["history"][0])
    assert set(WHOLE["sites"][0]) <= set(real["sites"][0])

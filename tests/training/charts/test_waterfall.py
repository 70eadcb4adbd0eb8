import io
import re

import numpy as np
import pytest
from PIL import Image

from training.charts.drawing import VARIABLES, png, svg
from training.charts.waterfall import branch_rows, chain_rows, told, waterfall
from training.evaluation import DIFFERENCES, GAPS, Evaluation, differences

LOSSES = {
    "fit": 0.33,
    "train_mode": 0.25,
    "batch_statistics": 0.24,
    "inference_before": 2.9,
    "inference": 0.18,
    "natural": 0.19,
    "validation": 0.4,
    "served": 2.9,
}


def evaluated(absent=(), **changes):
    losses = LOSSES | changes
    causes, gaps = differences(losses, DIFFERENCES), differences(losses, GAPS)
    parts = losses | causes | gaps
    intervals = {name: None if value is None else (value - 0.05, value + 0.05) for name, value in parts.items()}
    return Evaluation(losses=losses, causes=causes, gaps=gaps, intervals=intervals, samples=80, absent=absent)


def test_each_bar_begins_where_the_one_before_ends():
    fit, *steps, validation = chain_rows(evaluated())
    assert [row.start for row in steps] == [fit.end, *(row.end for row in steps[:-1])]
    assert steps[-1].end == validation.end == 0.4
    assert fit.end + sum(row.end - row.start for row in steps) == pytest.approx(validation.end)


def test_a_step_s_whisker_is_around_its_end():
    generalization = chain_rows(evaluated())[-2]
    assert generalization.words == "+0.210"
    assert generalization.whisker == pytest.approx((0.4 - 0.05, 0.4 + 0.05))


def test_the_side_branch_says_what_is_served():
    names = [row.name for row in branch_rows(evaluated())]
    assert names[1] == "E  evaluate, recalibrated" and names[3] == "D  evaluate, before recalibration (served)"
    names = [row.name for row in branch_rows(evaluated(served=0.18))]
    assert names[1].endswith("recalibrated (served)") and not names[3].endswith("(served)")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_a_gap_with_its_reason(value):
    evaluation = evaluated(natural=None).model_copy(update={"losses": LOSSES | {"natural": value}})
    rows = chain_rows(evaluation)
    assert [row.there for row in rows] == [True, True, True, True, False, False, True]
    assert rows[4].words == rows[5].words == "missing or not a finite number"
    drawing = svg(waterfall(evaluation, 0.6), "x")
    assert drawing.count("missing or not a finite number") == 2 and "nan" not in drawing.lower()


def test_what_was_not_asked_for_is_no_alarm():
    rows = chain_rows(evaluated(absent=("natural",), natural=None))
    assert rows[4].words == rows[5].words == "not measured"


def test_nothing_at_all_still_gives_a_picture():
    nothing = evaluated(**dict.fromkeys(LOSSES))
    assert Image.open(io.BytesIO(png(waterfall(nothing, None)))).width == 1200
    assert "not a finite number" in told(nothing, None)


def test_intervals_that_are_not_finite_are_left_out():
    evaluation = evaluated()
    intervals = {name: (float("-inf"), float("nan")) for name in evaluation.intervals}
    assert all(row.whisker is None for row in chain_rows(evaluation.model_copy(update={"intervals": intervals})))


def test_the_limit_is_a_line_with_its_number():
    assert "served: accepted up to 0.580" in svg(waterfall(evaluated(), 0.58), "x")
    assert "accepted" not in svg(waterfall(evaluated(), None), "x")


def test_a_screen_reader_is_told_every_bar():
    words = told(evaluated(), 0.58)
    assert "A fit, as training reported it 0.330" in words and "A → B moving weights -0.080" in words
    assert words.endswith("(served) 2.900; accepted up to 0.580.")


def test_equal_evaluations_give_equal_bytes():
    one, other = (png(waterfall(evaluated(), 0.58, "solar_cells: Refused")) for _ in range(2))
    assert one == other and b"Software" not in one and b"tEXt" not in one
    image = Image.open(io.BytesIO(one))
    assert image.width == 1200 and image.getpixel((0, 0))[:3] == (255, 255, 255)
    assert svg(waterfall(evaluated(), 0.58), "x") == svg(waterfall(evaluated(), 0.58), "x")


def test_the_drawing_takes_every_colour_from_the_page():
    drawing = svg(waterfall(evaluated(), 0.58), 'a "label" & more')
    assert not re.findall(r"#[0-9a-f]{6}", drawing)
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", drawing)) <= set(VARIABLES.values())
    assert 'aria-label="a &quot;label&quot; &amp; more"' in drawing and "<metadata>" not in drawing


def test_the_branch_has_its_own_scale_only_where_it_is_far_longer():
    far, near = waterfall(evaluated(), None), waterfall(evaluated(inference_before=0.5, served=0.18), None)
    assert far.axes[0].get_xlim()[1] < 1 < far.axes[1].get_xlim()[1]
    assert np.array_equal(near.axes[0].get_xlim(), near.axes[1].get_xlim())

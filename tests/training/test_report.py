import re

import numpy as np
import pytest

from tests.conftest import SOLAR_CELLS, small_settings
from training.charts.drawing import svg
from training.charts.drift import drift_chart
from training.charts.learning import learning_curves
from training.charts.ranking import MOST_CURVES, roc_chart
from training.charts.reliability import reliability_chart
from training.charts.waterfall import LOSS_NAMES
from training.config import load_config
from training.evaluation import DIFFERENCES, GAPS, MEANINGS, Evaluation, differences
from training.logits import probabilities
from training.metrics import served_metrics
from training.mistakes import Mistake
from training.ranking_curves import each_class, roc
from training.report import confusion, losses_picture, render
from training.run_folder import Run
from training.sampling import Prior
from training.store import open_store
from training.verdict import judge

PRIOR = Prior(shift=(0.2, -0.6), method="analytic")
LAYER = {"channels": 8, "written": True, "mean_drift": 0.4, "worst_mean_drift": 1.9, "variance_ratio": 0.6}
REMAINING = {"remaining_mean_drift": 0.0, "remaining_worst_mean_drift": 2e-7, "remaining_variance_ratio": 1.0}
LAYERS = [LAYER | REMAINING | {"name": f"bn{place}"} for place in range(3)]
BATCH_NORM = {
    "applied": True,
    "reason": "pooled population statistics written",
    "samples": 64,
    "layers": LAYERS,
    "mode": "one_pass",
    "passes": 1,
    "residual": None,
    "kept_original": False,
    "validation": None,
}

VALIDATION = {
    "images": 93,
    "accepted": 90,
    "quarantined": {"decodable": 2, "leakage": 1},
    "counts": {"train": {"intact": 60, "defective": 30}},
    "shares": {"train": {"expected": 0.65, "observed": 0.664, "deviation": 0.014}},
    "summary": {
        "images": 90,
        "shares": {"defective": 1 / 3, "intact": 2 / 3},
        "brightness": {"mean": 0.41, "sd": 0.09},
        "log_pixels": {"mean": 2 * np.log(300), "sd": 0.0},
    },
    "drift": {
        "label_share": {"statistic": "total_variation_distance", "observed": 0.02, "limit": 0.1},
        "brightness": {"statistic": "standardized_mean_difference", "observed": 0.7, "limit": 0.5},
        "size": {"statistic": "standardized_mean_difference", "observed": 3.1, "limit": None},
    },
}
PLACE = {
    "code_commit": "0123abc",
    "python": "3.11.7",
    "platform": "Linux",
    "processor": "a processor",
    "threads": 2,
    "memory_bytes": 2**34,
    "versions": {"keras": "3.15.1", "zzz": "9.9"},
}
PROVENANCE = {
    "data_sha256": "da7a",
    "config_sha256": "c0f1",
    "seeds": {"seed": 7},
    "environments": {"e1": PLACE},
    "steps": {
        "train": {"seconds": 12.5, "began": "2026-01-02T00:00:00+00:00", "host": "h", "environment": "e1"},
        "ingest": {"seconds": 1, "began": "2026-01-01T00:00:00+00:00", "host": "h", "environment": "e1"},
    },
}
EVIL = "<script>alert('x')</script> & $\\alpha$"
MISTAKE = Mistake("images/one.png", "intact", "defective", 0.987, 4.34, b"\xff\xd8jpeg")


@pytest.fixture(scope="module")
def answers():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 120)
    return random.normal(labels, 1.5)[:, None], labels


@pytest.fixture(scope="module")
def measured(answers):
    """What is measured of the served model."""
    logits, labels = answers
    splits = ("train", "validation", "test")
    return served_metrics(
        dict.fromkeys(splits, logits), dict.fromkeys(splits, labels), PRIOR, 0, ("intact", "defective")
    )


@pytest.fixture
def page(tmp_path, answers, measured):
    """The page of a night of which only what is given differs from a plain one."""
    config = load_config(SOLAR_CELLS, small_settings("data", tmp_path))
    run = Run(open_store(str(tmp_path / "run")), config)
    run.store.write(
        "history.csv", b"epoch,cross_entropy,val_loss,recalibrated_val_loss\n1,0.6,0.9,0.6\n2,0.4,7.0,0.5\n"
    )
    run.write_json("provenance.json", PROVENANCE)

    def made(batch_norm=None, evaluation=None, loss=0.4, validation=None, mistakes=(MISTAKE,)):
        run.write_json("validation.json", VALIDATION | (validation or {}))
        run.write_json("batch_norm.json", BATCH_NORM | (batch_norm or {}))
        found = _evaluation(loss).model_copy(update=measured | (evaluation or {}))
        logits = {"before": answers[0], "after": PRIOR.corrected(answers[0])}
        scores = {name: probabilities(values) for name, values in logits.items()}
        text = render(run, found, judge(found, run.config.gate), scores, answers[1], mistakes).decode()
        return re.sub(r"\s+", " ", text)

    return made


def _evaluation(loss):
    losses = dict.fromkeys([*LOSS_NAMES, "served"], loss)
    parts = differences(losses, DIFFERENCES) | differences(losses, GAPS)
    return Evaluation(
        losses=losses,
        causes=differences(losses, DIFFERENCES),
        gaps=differences(losses, GAPS),
        intervals={name: None if part is None else (part - 0.01, part + 0.01) for name, part in parts.items()},
        samples=80,
        kept_epoch=2,
        prior=PRIOR,
    )


def test_the_page_tells_what_was_left_out_of_the_data(page):
    assert "90 of 93 images were used; the others" in page() and "(decodable 2, leakage 1)" in page()


def test_the_page_shows_calibration_before_and_after(page, answers):
    text = page()
    assert "Accepted" in text and "-0.800 is added to the log odds, from the class shares" in text
    mean = probabilities(answers[0]).mean(), probabilities(answers[0] - 0.8).mean()
    row = "".join(f'<td class="n">{value:.3f}</td>' for value in mean)
    assert f'<th scope="row">mean predicted probability</th>{row}' in text
    assert "expected calibration error, 10 bins of equal count" in text
    assert "before prior correction</text>" in text and "after, as served</text>" in text
    assert "What separates them most" not in text and "Were each batch" not in text


def test_the_page_names_what_separates_most(page):
    text = page(evaluation={"dominant": "stochastic_layers"})
    assert "What separates them most: stochastic layers (+0.000 nats): dropout and augmentation act" in text


def test_mini_batch_statistics_are_one_sentence(page):
    text = page(evaluation={"mini_batch_statistics": {"batch_size": 8, "test": {"loss": 0.543, "roc_auc": 0.81}}})
    assert "Were each batch of 8 test images normalised by its own statistics, the test loss would be 0.543" in text


def test_the_self_consistent_mode_says_how_it_ended(page):
    assert "written (64 images, one pass)." in page()
    text = page({"mode": "self_consistent", "passes": 5, "residual": 1.5e-7})
    assert "5 passes; in the last one no channel's statistics moved by more than 1.5e-07 of σ" in text


@pytest.mark.parametrize(
    ("check", "kept", "told"),
    [
        ({"before": 3.0, "after": 0.5, "interval": [-2.9, -2.1]}, False, "it does not speak against them"),
        ({"before": 0.5, "after": 3.0, "interval": [2.1, 2.9]}, True, "to 2.900); the former are kept"),
        ({"before": 0.5, "after": None, "interval": None}, True, "and – with the pooled ones; the former are kept"),
    ],
)
def test_what_validation_said_of_the_statistics(page, check, kept, told):
    assert told in page({"validation": check, "kept_original": kept})


def test_layers_that_were_only_measured_have_no_second_value(page):
    """Frozen BatchNorm, or recalibration turned off."""
    measured = [layer | dict.fromkeys(REMAINING) | {"written": False} for layer in LAYERS]
    text = page({"applied": False, "reason": "measured only", "layers": measured})
    assert '<td class="n">–</td><td>no</td>' in text
    assert "Layer by layer" not in page({"layers": []})


def test_losses_that_are_not_finite_still_give_a_page(page):
    text = page(loss=None, evaluation={"metrics": {}, "threshold": None, "calibration": {}})
    assert "<h1>Refused: a loss is missing or not a finite number.</h1>" in text and "Calibration" not in text
    assert "missing or not a finite number</text>" in text and "Lower train.learning_rate" in text


def test_charts_draw_what_is_there():
    only_before = svg(drift_chart([LAYER | dict.fromkeys(REMAINING)]), "x")
    assert "as served</text>" in svg(drift_chart(LAYERS), "x") and "as served</text>" not in only_before
    scores = {"before": np.array([[0.2], [0.9]]), "after": np.array([[0.1], [0.8]])}
    assert "<svg " in svg(reliability_chart(np.array([0, 1]), scores), "x")


def test_the_first_words_are_the_verdict(page):
    text = page()
    assert text.index("<h1>Accepted: loss 0.400 in training, 0.400 in evaluation on the same images.</h1>")
    assert text.count("<h1") == 1 and text.index("<h1>") < text.index('class="tiles"') < text.index("<main>")


def test_tiles_give_the_figures_that_matter(page, measured):
    text, test = page(), measured["metrics"]["test"]
    low, high = test["roc_auc_interval"]
    assert f'{test["roc_auc"]:.3f}</dd><dd class="beside">95 % interval {low:.3f} to {high:.3f}</dd>' in text
    assert '>0.400 → 0.400</dd><dd class="beside">nats, before → after recalibration</dd>' in text
    assert '>+0.000</dd><dd class="beside">nats; accepted up to +0.250</dd>' in text
    assert '>90</dd><dd class="beside">of 93; 3 in quarantine</dd>' in text and 'class="alarm"' not in text


def diverged():
    losses = _evaluation(0.2).losses | dict.fromkeys(("inference_before", "served"), 2.9)
    parts = differences(losses, DIFFERENCES) | differences(losses, GAPS)
    return {
        "losses": losses,
        "causes": differences(losses, DIFFERENCES),
        "gaps": differences(losses, GAPS),
        "intervals": {name: (part - 0.01, part + 0.01) for name, part in parts.items()},
        "dominant": "batch_norm",
    }


def test_a_refusal_says_why_and_what_to_do_first(page):
    text = page(evaluation=diverged())
    assert "<h1>Refused: loss 0.200 in training became 2.900 in evaluation on the same images.</h1>" in text
    top = text[: text.index("<main>")]
    assert f"batch norm: {MEANINGS['batch_norm'].replace(chr(39), '&#39;')}." in top
    assert top.count("Turn on recalibrate.enabled") == 1
    assert top.count('<td class="n bad">2.700</td>') == 2 and '<td class="n">0.250</td>' in top
    assert 'class="alarm"><dt>Gap, served − fit' in top and "the former is served" in top
    assert text.count('<td class="bad">exceeded</td>') == 3  # two limits of the gate, and the brightness


@pytest.mark.parametrize(("threshold", "told"), [(0.3, "0.300"), (2e-6, "2.0e-06"), (1 - 3e-7, "1 - 3.0e-07")])
def test_a_threshold_next_to_nothing_is_not_called_nothing(page, threshold, told):
    assert f"at a probability of {told} or above" in page(evaluation={"threshold": threshold})


def test_both_ways_to_be_wrong_are_counted(page, measured):
    counts = measured["metrics"]["test"]["confusion"]
    text = page()
    share = counts["fp"] / (counts["fp"] + counts["tn"])
    cell = f'<td style="--share: {share:.3f}"><strong>{counts["fp"]}</strong> <span>{100 * share:.1f} %</span></td>'
    assert cell in text and f'<td style="--share: 0">{counts["fp"] + counts["tn"]}</td>' in text
    assert confusion({"confusion": {"tn": 1, "fp": 2, "fn": 3, "tp": 4}}) == [[1, 2], [3, 4]]
    assert confusion({"confusion": [[1, 0, 2]]}) == [[1, 0, 2]] and confusion(None) == []


def test_curves_carry_their_areas_and_one_interval_each(page, measured):
    test = measured["metrics"]["test"]
    low, high = test["roc_auc_interval"]
    text = page()
    assert f"defective: {test['roc_auc']:.3f} ({low:.3f} to {high:.3f})</text>" in text
    assert f"defective: {test['average_precision']:.3f} (" in text


def test_test_images_of_one_class_have_no_curves(page, answers, monkeypatch):
    monkeypatch.setattr(
        "training.report.each_class",
        lambda kind, classes, scores, labels, seed: each_class(kind, classes, scores, np.zeros_like(labels), seed),
    )
    assert "all of one class: there is no ROC" in page()


def test_mistakes_are_shown_with_what_was_said_of_them(page):
    text = page(mistakes=(MISTAKE, Mistake("gone.png", "defective", "intact", 0.9, 2.3)))
    assert "data:image/jpeg;base64,/9hqcGVn" in text and 'alt="intact image 1, decided defective"' in text
    assert "decided <strong>defective</strong> (0.987)<br>loss 4.340" in text
    assert "no longer there, or changed" in text and "gone.png" in text and text.count("<img ") == 1
    assert "None: every test image was decided as it is labelled." in page(mistakes=())


def test_names_that_others_gave_are_only_ever_text(page):
    mistake = Mistake(f'"><img src=x onerror=1>{EVIL}', EVIL, EVIL, 0.9, 2.3, b"x")
    layers = [LAYER | REMAINING | {"name": EVIL}]
    text = page({"layers": layers, "reason": EVIL}, mistakes=(mistake,), validation={"quarantined": {EVIL: 1}})
    assert "<script" not in text and "<img src=x" not in text
    assert text.count("&lt;script&gt;") >= 6
    names = [f"{place} {EVIL}" for place in range(10)]
    scores = np.random.default_rng(0).random((60, 10))
    curves = each_class(roc, names, scores, np.arange(60) % 10, 0)
    drawing = svg(roc_chart(curves), names[0])
    assert "<script" not in drawing and drawing.count("$</text>") == 0 and drawing.count("…") == MOST_CURVES


def test_the_page_needs_nothing_but_itself(page):
    text = page(evaluation=diverged())
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert not re.findall(r'(?:src|xlink:href)="(?!data:|#)', text)
    assert set(re.findall(r'<a href="([^"#]+)"', text)) == {"data_docs/index.html"}
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in text
    assert len(text) < 400_000


def test_no_two_parts_of_the_page_have_one_name(page):
    text = page()
    names = re.findall(r'\bid="([^"]+)"', text)
    assert len(names) == len(set(names)) > 100
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(names)


def test_data_are_summed_up_and_held_against_the_champion_s(page):
    text = page()
    assert '<th scope="row">share of defective</th><td class="n">33.3 %</td>' in text and "300 × 300" in text
    assert '<td class="n">0.700</td><td class="n">0.500</td><td class="bad">exceeded</td>' in text
    assert '<td class="n">0.020</td><td class="n">0.100</td><td class="good">within</td>' in text
    assert '<td class="n">3.100</td><td class="n">–</td><td class="quiet">off</td>' in text
    assert "no drift is measured" in page(validation={"drift": {}, "summary": None})


def test_what_it_was_made_from(page):
    text = page()
    assert all(fact in text for fact in ("0123abc", "Python 3.11.7, keras 3.15.1", "zzz==9.9", "16.0 GiB", "da7a"))
    assert text.index('<th scope="row">ingest</th><td class="n">1.0</td>') < text.index('>train</th><td class="n">12.5')


@pytest.mark.parametrize("worst", ["nan", "inf"])
def test_an_epoch_without_a_finite_loss_leaves_a_gap(worst):
    row = {"epoch": 1.0, "cross_entropy": 0.6, "val_loss": 0.9, "recalibrated_val_loss": 0.6}
    drawn = learning_curves([row, row | {"epoch": 2.0, "val_loss": float(worst)}], 1)
    assert np.isnan(drawn.axes[0].lines[1].get_ydata()[1]) and drawn.axes[0].get_yscale() == "linear"
    nothing = dict.fromkeys(row, float(worst)) | {"epoch": 1.0}
    assert "<svg " in svg(learning_curves([nothing], None), "x")


def test_the_picture_for_an_alert_says_which_night_it_is(tmp_path):
    run = Run(open_store(str(tmp_path)), load_config(SOLAR_CELLS, small_settings("data", tmp_path)))
    evaluation = _evaluation(0.4).model_copy(update=diverged())
    picture = losses_picture(run, evaluation, judge(evaluation, run.config.gate))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n" and 20_000 < len(picture) < 200_000
    assert picture == losses_picture(run, evaluation, judge(evaluation, run.config.gate))

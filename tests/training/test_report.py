import re

import numpy as np
import pytest

from tests.conftest import SOLAR_CELLS, small_settings
from training.charts import drift_chart, reliability_chart
from training.config import load_config
from training.evaluation import DIFFERENCES, GAPS, Evaluation, differences
from training.logits import probabilities
from training.metrics import served_metrics
from training.report import LOSS_NAMES, render
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
}


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
    run.write_json("validation.json", VALIDATION)
    run.write_json("provenance.json", {"steps": {}})

    def made(batch_norm=None, evaluation=None, loss=0.4):
        run.write_json("batch_norm.json", BATCH_NORM | (batch_norm or {}))
        found = _evaluation(loss).model_copy(update=measured | (evaluation or {}))
        logits = {"before": answers[0], "after": PRIOR.corrected(answers[0])}
        scores = {name: probabilities(values) for name, values in logits.items()}
        text = render(run, found, judge(found, run.config.gate), scores, answers[1]).decode()
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
    assert f"<td>mean predicted probability</td>{row}" in text
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
    assert "Refused: non finite" in text and "Calibration" not in text


def test_charts_draw_what_is_there():
    only_before = [LAYER | dict.fromkeys(REMAINING)]
    assert "as served</text>" in drift_chart(LAYERS) and "as served</text>" not in drift_chart(only_before)
    scores = {"before": np.array([[0.2], [0.9]]), "after": np.array([[0.1], [0.8]])}
    assert "<svg " in reliability_chart(np.array([0, 1]), scores)

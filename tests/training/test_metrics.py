import numpy as np
import pytest
from sklearn import metrics as truth

from training.logits import cross_entropies, probabilities
from training.metrics import best_threshold, binary_metrics, served_metrics
from training.one_vs_rest import ranked_areas
from training.sampling import Prior


@pytest.fixture
def answers():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    return (random.normal(size=300) + 2 * labels - 1)[:, None], labels


def test_roc_auc_is_the_share_of_pairs_in_order(answers):
    logits, labels = answers
    positive, negative = logits[labels == 1, 0], logits[labels == 0, 0]
    truth = (positive[:, None] > negative).mean()
    found = binary_metrics(logits, labels, 0.5, seed=0)
    assert found["roc_auc"] == pytest.approx(truth)
    low, high = found["roc_auc_interval"]
    assert low < truth < high


def test_areas_by_ranks_are_scikit_learns_ties_included(answers):
    logits, labels = answers
    random, scores = np.random.default_rng(1), probabilities(logits.round(1))[:, 0]
    for _ in range(20):
        drawn = random.choice(len(labels), len(labels))
        area = ranked_areas(scores[drawn, None], labels[drawn, None] == 1)[0]
        assert area == pytest.approx(truth.roc_auc_score(labels[drawn], scores[drawn]), abs=1e-12)
    assert np.isnan(ranked_areas(scores[:, None], np.ones((len(labels), 1), bool))[0])


def test_decisions_are_counted_at_the_threshold(answers):
    logits, labels = answers
    found = binary_metrics(logits, labels, 0.5, seed=0)
    decided = logits[:, 0] >= 0
    assert found["confusion"]["tp"] == (decided & (labels == 1)).sum()
    assert found["accuracy"] == pytest.approx((decided == labels).mean())
    assert found["loss"] == pytest.approx(np.log1p(np.exp(np.where(labels, -1, 1) * logits[:, 0])).mean())


def test_the_interval_of_the_loss_is_as_wide_as_its_standard_error_says(answers):
    logits, labels = answers
    losses = np.log1p(np.exp(np.where(labels, -1, 1) * logits[:, 0]))
    variances = [losses[labels == label].var() * (labels == label).sum() for label in (0, 1)]
    low, high = binary_metrics(logits, labels, 0.5, seed=0)["loss_interval"]
    assert (low + high) / 2 == pytest.approx(losses.mean(), rel=0.03)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(sum(variances)) / len(labels), rel=0.1)


def test_the_threshold_separates_best(answers):
    logits, labels = answers
    scores = 1 / (1 + np.exp(-logits[:, 0]))

    def youden(threshold):
        return (scores[labels == 1] >= threshold).mean() - (scores[labels == 0] >= threshold).mean()

    assert youden(best_threshold(scores, labels)) == pytest.approx(max(youden(score) for score in scores))


def test_the_threshold_is_chosen_on_validation_of_what_is_served(answers):
    """Training and test images have no say, and the correction moves it: the same images are positive."""
    logits, labels = answers
    prior = Prior(shift=(0.3, -0.6), method="analytic")
    raw = {"train": np.sort(logits, axis=0), "validation": logits, "test": logits[::-1]}
    found = served_metrics(raw, dict.fromkeys(raw, labels), prior, 0, ("a", "b"))
    served = probabilities(logits - 0.9)[:, 0]
    assert found["threshold"] == best_threshold(served, labels)
    plain = probabilities(logits)[:, 0]
    np.testing.assert_array_equal(served >= found["threshold"], plain >= best_threshold(plain, labels))
    assert found["metrics"]["validation"]["confusion"]["tp"] == (served >= found["threshold"])[labels == 1].sum()
    assert found["calibration"]["after"]["log_loss"] == pytest.approx(found["metrics"]["test"]["loss"])
    assert found["calibration"]["before"]["mean_predicted"] == pytest.approx(plain.mean())


def test_nothing_is_said_of_logits_that_are_not_finite(answers):
    logits, labels = answers
    raw = {"train": logits, "validation": logits, "test": logits * np.nan}
    assert served_metrics(raw, dict.fromkeys(raw, labels), Prior(shift=(0, 0), method="analytic"), 0, ("a", "b")) == {}


CLASSES = ("intact", "doubtful", "defective")


@pytest.fixture
def graded():
    """Logits (400, 3) that know something, and unequal classes."""
    random = np.random.default_rng(0)
    labels = random.choice(3, 400, p=[0.6, 0.3, 0.1])
    return random.normal(size=(400, 3)) * 1.5 + 1.5 * np.eye(3)[labels], labels


def served(logits, labels, shift=(0.0, 0.0, 0.0)):
    raw = dict.fromkeys(("train", "validation", "test"), logits)
    return served_metrics(raw, dict.fromkeys(raw, labels), Prior(shift=shift, method="analytic"), 0, CLASSES)


def test_several_classes_are_scikit_learns(graded):
    logits, labels = graded
    scores, found = probabilities(logits), served(logits, labels)["metrics"]["test"]
    decided, rows = scores.argmax(axis=1), np.eye(3)[labels]
    assert found["roc_auc"] == pytest.approx(truth.roc_auc_score(labels, scores, multi_class="ovr"))
    assert found["loss"] == pytest.approx(truth.log_loss(labels, scores))
    assert found["average_precision"] == pytest.approx(truth.average_precision_score(rows, scores))
    assert found["brier"] == pytest.approx(truth.brier_score_loss(labels, scores, scale_by_half=False))
    assert found["accuracy"] == pytest.approx((decided == labels).mean())
    assert found["balanced_accuracy"] == pytest.approx(truth.balanced_accuracy_score(labels, decided))
    assert found["precision"] == pytest.approx(truth.precision_score(labels, decided, average="macro"))
    assert found["confusion"] == truth.confusion_matrix(labels, decided).tolist()
    for number, label in enumerate(CLASSES):
        each = found["per_class"][label]
        assert each["roc_auc"] == pytest.approx(truth.roc_auc_score(labels == number, scores[:, number]))
        assert each["recall"] == pytest.approx((decided[labels == number] == number).mean())
        assert each["images"] == (labels == number).sum()


def test_several_classes_have_no_threshold_and_are_decided_after_correction(graded):
    logits, labels = graded
    shift = (1.0, -2.0, 0.5)
    found = served(logits, labels, shift)
    assert found["threshold"] is None
    decided = (logits + shift).argmax(axis=1)
    assert found["metrics"]["test"]["accuracy"] == pytest.approx((decided == labels).mean())
    assert found["calibration"]["before"]["log_loss"] == pytest.approx(cross_entropies(logits, labels).mean())


def test_the_order_of_the_classes_changes_no_mean(graded):
    logits, labels = graded
    one, other = (served(*pair)["metrics"]["test"] for pair in ((logits, labels), (logits[:, ::-1], 2 - labels)))
    for name in ("loss", "roc_auc", "average_precision", "brier", "accuracy", "balanced_accuracy", "precision"):
        assert one[name] == pytest.approx(other[name])
    assert other["confusion"] == [row[::-1] for row in one["confusion"]][::-1]


def test_a_draw_keeps_the_classes_shares(graded):
    """A loss that only depends on the class cannot vary from draw to draw."""
    labels = graded[1]
    logits = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0]])[labels]
    found = served(logits, labels)["metrics"]["test"]
    assert found["loss_interval"] == pytest.approx([found["loss"]] * 2)
    assert found["roc_auc_interval"] == [1.0, 1.0]
    low, high = served(*graded)["metrics"]["test"]["roc_auc_interval"]
    assert low < served(*graded)["metrics"]["test"]["roc_auc"] < high < low + 0.15


def test_a_class_that_is_missing_is_left_out_of_the_means(graded):
    logits, labels = (values[graded[1] > 0] for values in graded)
    found = served(logits, labels)["metrics"]["train"]
    assert found["per_class"]["intact"]["roc_auc"] is None and found["per_class"]["intact"]["images"] == 0
    areas = [found["per_class"][label]["roc_auc"] for label in CLASSES[1:]]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    alone = served(logits[labels == 1], labels[labels == 1])["metrics"]["train"]
    assert alone["roc_auc"] is None and alone["roc_auc_interval"] is None
    assert alone["recall"] == alone["balanced_accuracy"] == alone["accuracy"]


@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_ties_count_half(constant):
    found = served(np.full((10, 3), constant), np.arange(10) % 3)["metrics"]["test"]
    assert found["roc_auc"] == 0.5

import pytest

from training.config import GateConfig
from training.errors import Diverged, WorseThanChampion
from training.evaluation import DIFFERENCES, GAPS, Evaluation, differences
from training.verdict import Comparison, failure_of, judge, loss_gap_limit, worse_than

EQUAL = dict.fromkeys(
    ("fit", "train_mode", "batch_statistics", "inference_before", "inference", "natural", "validation", "served"), 0.4
)


def evaluation(width=0.01, **losses):
    found = EQUAL | losses
    parts = differences(found, DIFFERENCES) | differences(found, GAPS)
    return Evaluation(
        losses=found,
        causes=differences(found, DIFFERENCES),
        gaps=differences(found, GAPS),
        intervals={name: None if part is None else (part - width, part + width) for name, part in parts.items()},
        samples=640,
    )


def champion(loss=0.0, area=0.0, width=0.01):
    """A candidate whose loss and ROC AUC differ by this much, give or take `width`."""
    return Comparison(
        number=3,
        images=500,
        champion_loss=0.4,
        candidate_loss=0.4 + loss,
        difference=loss,
        interval=(loss - width, loss + width),
        champion_roc_auc=0.9,
        candidate_roc_auc=0.9 + area,
        roc_auc_difference=area,
        roc_auc_interval=(area - width, area + width),
    )


def test_agreement_is_accepted():
    verdict = judge(evaluation(), GateConfig())
    assert verdict.accepted and verdict.reasons == ()


def test_lagging_statistics_are_refused_and_named():
    verdict = judge(evaluation(inference_before=6.0, served=6.0), GateConfig())
    assert not verdict.accepted
    assert {reason.code for reason in verdict.reasons} == {"loss_gap", "batch_norm_gap"}
    assert {reason.cause for reason in verdict.reasons} == {"batch_norm"}
    error = failure_of(verdict)
    assert isinstance(error, Diverged) and error.exit_code == 4
    assert "fit loss 0.400" in error.message and "recalibrate.enabled" in error.remedy


@pytest.mark.parametrize(
    ("losses", "cause"),
    [
        ({"train_mode": 0.9, "batch_statistics": 0.9, "inference": 0.9, "inference_before": 0.9}, "moving_weights"),
        ({"batch_statistics": 0.9, "inference": 0.9, "inference_before": 0.9}, "stochastic_layers"),
        ({"inference": 0.9, "inference_before": 0.9}, "small_batches"),
        ({"inference_before": 0.9}, "batch_norm"),
    ],
)
def test_the_largest_part_of_the_gap_is_the_cause(losses, cause):
    served = losses["inference_before"]
    assert judge(evaluation(served=served, **losses), GateConfig()).reasons[0].cause == cause


def test_a_better_evaluation_is_never_a_failure():
    assert judge(evaluation(fit=2.0, train_mode=2.0), GateConfig()).accepted


def test_noise_is_not_refused():
    """The point is over the limit, the 99 % bound is not."""
    assert judge(evaluation(width=0.2, served=0.7, inference=0.7, batch_statistics=0.65), GateConfig()).accepted


def test_the_wider_of_gap_and_ratio_applies():
    gate = GateConfig(max_loss_gap=0.1, max_loss_ratio=2.0)
    assert loss_gap_limit(gate, 0.4) == pytest.approx(0.4)
    assert loss_gap_limit(gate, 0.01) == pytest.approx(0.1)
    assert loss_gap_limit(GateConfig(max_loss_gap=None, max_loss_ratio=None), 0.4) is None


def test_anything_not_finite_is_refused():
    verdict = judge(evaluation(validation=None), GateConfig())
    assert [reason.code for reason in verdict.reasons] == ["non_finite"]
    assert failure_of(verdict).exit_code == 4


def test_without_an_interval_the_gate_stays_closed():
    found = evaluation().model_copy(update={"intervals": {}})
    assert not judge(found, GateConfig()).accepted


def test_generalization_is_gated_only_when_asked():
    assert judge(evaluation(validation=2.0), GateConfig()).accepted
    refused = judge(evaluation(validation=2.0), GateConfig(max_generalization_gap=0.5))
    assert refused.reasons[0].cause == "generalization"


LIMITS = GateConfig(max_champion_loss_increase=0.05, max_champion_auc_decrease=0.03)


@pytest.mark.parametrize(
    ("compared", "accepted"),
    [
        (champion(loss=0.039, area=-0.019), True),
        (champion(loss=0.041), False),
        (champion(area=-0.021), False),
        (champion(loss=-0.2, area=0.1), True),
        (champion(loss=-0.2, area=-0.1), False),
        (champion(loss=0.2, area=0.1), False),
    ],
)
def test_the_bad_end_of_both_intervals_must_be_within_the_limit(compared, accepted):
    verdict = judge(evaluation(), LIMITS, compared)
    assert verdict.accepted == accepted and verdict.champion == compared


def test_worse_than_the_champion_is_its_own_failure():
    error = failure_of(judge(evaluation(), LIMITS, champion(loss=0.2, area=-0.1)))
    assert isinstance(error, WorseThanChampion) and error.exit_code == 5
    for told in ("champion 3", "500 test images", "0.600 against 0.400", "+0.190 to +0.210", "at most +0.050"):
        assert told in error.message
    for told in ("0.800 against 0.900", "-0.110 to -0.090", "at least -0.030"):
        assert told in error.message
    assert "too few" not in error.message and "\n" not in error.message


def test_too_wide_an_interval_is_refused_and_said_to_be_that():
    """The same differences pass once there are images enough to know them."""
    assert judge(evaluation(), LIMITS, champion(loss=0.01, area=-0.01, width=0.01)).accepted
    error = failure_of(judge(evaluation(), LIMITS, champion(loss=0.01, area=-0.01, width=0.1)))
    assert error.exit_code == 5 and "too few to tell" in error.message and "test images" in error.remedy


def test_a_comparison_without_numbers_is_refused():
    nothing = champion().model_copy(update={"interval": (float("nan"), float("nan"))})
    assert worse_than(nothing, LIMITS) is not None


def test_the_first_champion_needs_no_comparison():
    assert worse_than(None, LIMITS) is None and judge(evaluation(), LIMITS).champion is None


def test_divergence_outranks_the_champion():
    assert failure_of(judge(evaluation(served=6.0), GateConfig(), champion(0.2))).exit_code == 4


def test_a_verdict_round_trips():
    verdict = judge(evaluation(served=6.0), GateConfig(), champion(0.2))
    assert type(verdict).model_validate_json(verdict.model_dump_json()) == verdict


def test_what_was_not_asked_for_is_no_alarm():
    absent = evaluation(natural=None, validation=None).model_copy(update={"absent": ("natural", "validation")})
    assert judge(absent, GateConfig()).accepted
    assert not judge(evaluation(natural=None, validation=None), GateConfig()).accepted
    assert not judge(absent, GateConfig(max_generalization_gap=0.5)).accepted


@pytest.mark.parametrize("name", ["fit", "served", "batch_statistics"])
def test_what_a_limit_needs_must_be_there(name):
    without = evaluation(**{name: None}).model_copy(update={"absent": (name,)})
    assert not judge(without, GateConfig()).accepted


def test_without_a_loss_limit_fit_is_not_needed():
    without = evaluation(fit=None).model_copy(update={"absent": ("fit",)})
    assert judge(without, GateConfig(max_loss_gap=None, max_loss_ratio=None)).accepted

import numpy as np
import pytest

from training.mistakes import decisions, worst


def test_a_binary_model_decides_at_its_threshold():
    scores = np.array([[0.2], [0.3], [0.9]])
    assert decisions(scores, 0.3).tolist() == [0, 1, 1] and decisions(scores, None).tolist() == [0, 0, 1]


def test_only_wrong_decisions_are_mistakes_and_the_surest_come_first():
    logits = np.array([[4.0], [-1.0], [-3.0], [2.0], [-0.1]])
    labels = np.array([0, 1, 1, 1, 0])
    assert worst(logits, labels, 0.5).tolist() == [0, 2, 1]
    assert worst(logits, labels, 0.5, most=1).tolist() == [0]
    # At a low threshold the last one is a mistake as well, with a loss of less than the others'.
    assert worst(logits, labels, 0.4).tolist() == [0, 2, 1, 4]


def test_probabilities_of_one_to_the_last_bit_are_still_ordered():
    logits = np.array([[800.0], [900.0], [850.0]])
    assert worst(logits, np.zeros(3, int), 0.5).tolist() == [1, 2, 0]


def test_of_several_classes_the_largest_decides():
    logits = np.array([[3.0, 0, 0], [0, 3, 0], [0, 5, 0]])
    assert worst(logits, np.array([0, 0, 2]), None).tolist() == [2, 1]


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_without_mistakes_has_none(outputs):
    logits = np.eye(outputs)[:2] * 9
    assert worst(logits, np.array([1]) if outputs == 1 else np.array([0, 1]), 0.5).tolist() == []

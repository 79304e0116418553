import numpy as np
import pytest

from feature_store.contracts.errors import InvalidInput
from offline_training.off_policy.slate_log import SlateLog, single_decisions
from offline_training.off_policy.weights import by_category, pseudo_inverse_weights, weights_before


def two_slots() -> SlateLog:
    """A slate of two positions and one of one, with item-position weights (2, 1/2) and (4)."""
    zeros = np.zeros((2, 2))
    return SlateLog(
        users=np.arange(2),
        present=np.array([[True, True], [True, False]]),
        rewards=zeros,
        target=zeros,
        logging=np.ones((2, 2)),
        model=zeros,
        model_target=zeros,
        target_marginal=np.array([[1.0, 0.25], [1.0, 0.0]]),
        logging_marginal=np.array([[0.5, 0.5], [0.25, 1.0]]),
    )


def test_the_weight_before_the_first_position_is_one() -> None:
    assert weights_before(two_slots(), np.array([[3.0, 6.0], [5.0, 0.0]])).tolist() == [[1.0, 3.0], [1.0, 0.0]]


def test_pseudo_inverse_weights_by_hand() -> None:
    # 1 + (2 - 1) + (1/2 - 1) = 3/2 at both positions of the first slate; 1 + (4 - 1) = 4 at the only one of the second.
    assert pseudo_inverse_weights(two_slots()).tolist() == [[1.5, 1.5], [4.0, 0.0]]
    with pytest.raises(InvalidInput, match="marginal probabilities"):
        pseudo_inverse_weights(single_decisions(np.arange(1), np.ones(1), np.ones(1), np.ones(1)))


def test_a_category_has_the_chance_of_all_its_actions() -> None:
    chances = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    categories = np.array([0, 1, 0])
    assert by_category(chances, categories, np.array([2, 1])) == pytest.approx([0.7, 0.2])

"""Logged decisions as arrays, the one input of all estimators, and what is refused of them."""

from typing import NamedTuple

import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.contracts.errors import InvalidInput

_ROUNDING = 1e-9
_NAMES = {
    "rewards": "The reward",
    "target": "The target probability",
    "logging": "The logged probability",
    "model": "The predicted reward",
    "model_target": "The predicted reward of the evaluated policy",
    "target_marginal": "The marginal target probability",
    "logging_marginal": "The marginal logged probability",
    "unsupported": "The unsupported share",
}


class SlateLog(NamedTuple):
    """Decisions as arrays, n of them, padded to S positions.

    Where `present` is False the other arrays hold anything finite.
    """

    users: Int64  # (n,) whose decision it was: rows of one user belong together
    present: Bool  # (n, S) the slate has this position
    rewards: Float64  # (n, S)
    target: Float64  # (n, S) pi: chance that the evaluated policy puts the shown item there, given the slots before
    logging: Float64  # (n, S) pi_0: the same of the policy that made the log, in (0, 1]
    model: Float64  # (n, S) q: the predicted reward of the shown item
    model_target: Float64  # (n, S) E_pi q: the predicted reward of what the evaluated policy would put there
    target_marginal: Float64 | None = None  # (n, S) pi: chance of the item at its position, whatever was before
    logging_marginal: Float64 | None = None  # (n, S) the same of pi_0
    unsupported: Float64 | None = None  # (n, S) pi's chance of what pi_0 never puts there, given the slots before
    category: Int64 | None = None  # (n,) number of the category of the item, in a log of single decisions

    @property
    def positions(self) -> int:
        """S."""
        return int(self.present.shape[1])


def single_decisions(
    users: Int64,
    rewards: Float64,
    target: Float64,
    logging: Float64,
    model: Float64 | None = None,
    model_target: Float64 | None = None,
    unsupported: Float64 | None = None,
    category: Int64 | None = None,
) -> SlateLog:
    """The log of an ordinary contextual bandit, one item shown per decision; all (n,). Without a model q is 0."""
    nothing = np.zeros(len(rewards))
    return SlateLog(
        users=users,
        present=np.ones((len(rewards), 1), dtype=np.bool_),
        rewards=rewards[:, None],
        target=target[:, None],
        logging=logging[:, None],
        model=(nothing if model is None else model)[:, None],
        model_target=(nothing if model_target is None else model_target)[:, None],
        unsupported=None if unsupported is None else unsupported[:, None],
        category=category,
    )


def check(log: SlateLog) -> None:
    """Raises InvalidInput for an empty log, a number that is not finite, a probability outside its range, or marginal
    probabilities of one policy alone."""
    if not log.present.any():
        raise InvalidInput("Off-policy evaluation needs at least one logged slate. Run the experiment longer.")
    if (log.target_marginal is None) != (log.logging_marginal is None):
        raise InvalidInput("There are marginal probabilities of one policy, but not of the other. Give both, or none.")
    for name, values in log._asdict().items():
        if name in _NAMES and values is not None and not (finite := np.isfinite(values)).all():
            decision, position = np.argwhere(~finite)[0]
            raise InvalidInput(
                f"{_NAMES[name]} of decision {decision} at position {position + 1} is {values[decision, position]}: "
                "no estimate can be made of it. Leave the decision out."
            )
    for name, values in (("Logged", log.logging), ("Logged marginal", log.logging_marginal)):
        if values is not None and not ((found := values[log.present]).min() > 0 and found.max() <= 1 + _ROUNDING):
            raise InvalidInput(
                f"{name} probabilities lie in {found.min()}..{found.max()}, they must lie in (0, 1]: "
                "whatever was shown had a chance."
            )
    for name, values in (("Target", log.target), ("Target marginal", log.target_marginal)):
        if values is not None and not ((found := values[log.present]).min() >= 0 and found.max() <= 1 + _ROUNDING):
            raise InvalidInput(f"{name} probabilities lie in {found.min()}..{found.max()}, they must lie in [0, 1].")

"""The same arrays through the project's estimators and through those of Open Bandit Pipeline (obp).

obp asks for Python below 3.11, so that no extra of ours can name it; it works with newer ones all the same, once
installed with `pip install --no-deps --ignore-requires-python obp==0.5.7` and, the same way, pyieoe and seaborn.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from offline_training.off_policy import estimators as ours
from offline_training.off_policy.slate_log import SlateLog, single_decisions
from offline_training.off_policy.weights import by_category

_N, _ACTIONS, _CATEGORIES, _SLOTS, _LIMIT = 2_000, 12, 4, 3, 2.5


def differences(seed: int) -> dict[str, float] | None:
    """By estimator the relative difference of the two values; None: obp is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import obp.ope as obp
    except ModuleNotFoundError:
        return None
    rng = np.random.default_rng(seed)
    pairs = [*_single(obp, rng), *_slates(obp, rng)]
    return {name: abs(own - theirs) / max(abs(theirs), 1e-12) for name, own, theirs in pairs}


def _single(obp: Any, rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    rows = np.arange(_N)
    logging, target = (rng.dirichlet(np.ones(_ACTIONS), _N) * 0.9 + 0.1 / _ACTIONS for _ in range(2))
    actions = (logging.cumsum(axis=1) > rng.random((_N, 1))).argmax(axis=1)
    rewards, model = rng.normal(1, 2, _N), rng.random((_N, _ACTIONS))
    log = single_decisions(
        rows, rewards, target[rows, actions], logging[rows, actions], model[rows, actions], (target * model).sum(axis=1)
    )
    given = {
        "reward": rewards,
        "action": actions,
        "pscore": logging[rows, actions],
        "action_dist": target[:, :, None],
        "position": np.zeros(_N, dtype=int),
    }
    fitted = {**given, "estimated_rewards_by_reg_model": model[:, :, None]}
    mine = {name: ours.ESTIMATORS[name](log)[0].value for name in _SINGLE}
    for name, peer in _SINGLE.items():
        yield name, mine[name], getattr(obp, peer)().estimate_policy_value(**fitted)
    clipped = ours.shrunk(log, ours.CLIPPED, _LIMIT).value
    yield "clipped", clipped, obp.InverseProbabilityWeighting(lambda_=_LIMIT).estimate_policy_value(**given)
    switch = ours.shrunk(log, ours.SWITCH, _LIMIT).value
    yield "switch-DR", switch, obp.SwitchDoublyRobust(lambda_=_LIMIT).estimate_policy_value(**fitted)
    peer = obp.DoublyRobustWithShrinkage(lambda_=_LIMIT**2)
    yield "DRos", ours.shrunk(log, ours.SHRUNK, _LIMIT).value, peer.estimate_policy_value(**fitted)

    categories = rng.integers(0, _CATEGORIES, _ACTIONS)
    categories[:_CATEGORIES] = np.arange(_CATEGORIES)
    chances = [by_category(policy, categories, actions) for policy in (target, logging)]
    marginal = log._replace(target=chances[0][:, None], logging=chances[1][:, None])
    embedding = np.eye(_CATEGORIES)[categories][:, :, None]
    theirs = obp.MarginalizedInverseProbabilityWeighting(n_actions=_ACTIONS).estimate_policy_value(
        **given, action_embed=categories[actions][:, None], pi_b=logging[:, :, None], p_e_a=embedding
    )
    yield "MIPS", ours.rips(marginal)[0].value, theirs


_SINGLE = {
    "RIPS": "InverseProbabilityWeighting",
    "RIPS, self-normalised": "SelfNormalizedInverseProbabilityWeighting",
    "direct method": "DirectMethod",
    "doubly robust": "DoublyRobust",
    "doubly robust, self-normalised": "SelfNormalizedDoublyRobust",
}


def _slates(obp: Any, rng: np.random.Generator) -> Iterator[tuple[str, float, float]]:
    """obp's values are per slate, ours per impression."""
    n, shape = _N // 2, (_N // 2, _SLOTS)
    logging, target, rewards = rng.uniform(0.2, 1, shape), rng.uniform(0, 1, shape), rng.random(shape)
    policy, model = rng.dirichlet(np.ones(_ACTIONS), shape), rng.random((*shape, _ACTIONS))
    actions = rng.integers(0, _ACTIONS, shape)
    shown = np.take_along_axis(model, actions[..., None], axis=2)[..., 0]
    log = SlateLog(
        users=np.arange(n),
        present=np.ones(shape, np.bool_),
        rewards=rewards,
        target=target,
        logging=logging,
        model=shown,
        model_target=(policy * model).sum(axis=2),
        target_marginal=target,
        logging_marginal=logging,
    )
    given = {
        "slate_id": np.repeat(np.arange(n), _SLOTS),
        "reward": rewards.ravel(),
        "position": np.tile(np.arange(_SLOTS), n),
    }
    cascade = {
        "pscore_cascade": np.cumprod(logging, axis=1).ravel(),
        "evaluation_policy_pscore_cascade": np.cumprod(target, axis=1).ravel(),
    }
    marginal = {
        "pscore_item_position": logging.ravel(),
        "evaluation_policy_pscore_item_position": target.ravel(),
    }

    def compare(name: str, peer: str, **more: Any) -> tuple[str, float, float]:
        sizes = {"n_unique_action": _ACTIONS} if "Doubly" in peer else {}
        theirs = getattr(obp, peer)(len_list=_SLOTS, **sizes).estimate_policy_value(**given, **more)
        return f"slates: {name}", ours.ESTIMATORS[name](log)[0].value, theirs / _SLOTS

    yield compare("RIPS", "SlateRewardInteractionIPS", **cascade)
    yield compare("RIPS, self-normalised", "SelfNormalizedSlateRewardInteractionIPS", **cascade)
    yield compare("IIPS", "SlateIndependentIPS", **marginal)
    yield compare("IIPS, self-normalised", "SelfNormalizedSlateIndependentIPS", **marginal)
    yield compare(
        "doubly robust",
        "SlateCascadeDoublyRobust",
        **cascade,
        action=actions.ravel(),
        q_hat=model.ravel(),
        evaluation_policy_action_dist=policy.ravel(),
    )

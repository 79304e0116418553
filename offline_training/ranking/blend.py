"""How much the ranker counts beside retrieval in the order that serves.

Both score an item on the scale of log-probabilities: the ranker's log-odds, and retrieval's inner product over the
temperature of its softmax. Their weighted sum is the product of experts (logarithmic opinion pool, Genest & Zidek,
Statistical Science 1986, Eq. 3.4): what one of them is unsure of the other decides.
"""

import numpy as np

from feature_store.arrays import Bool, Float64, Int64
from feature_store.definitions import RANKER_FEATURES
from offline_training.ranking.dataset import RankerRows

RETRIEVAL_ALONE, EVEN, RANKER_ALONE = 0.0, 0.5, 1.0  # shares of the ranker
STANDARD_ERRORS = 2.0  # of the difference between users, by which one alone must be better
_KNOWN = [feature.name for feature in RANKER_FEATURES].index("known")


def blended(share: float, logits: Float64, retrieval: Float64) -> Float64:
    """share * logits + (1 - share) * retrieval, all (n,)."""
    return share * logits + (1 - share) * retrieval


def choose_share(rows: RankerRows, logits: Float64, retrieval: Float64) -> float:
    """The share of the ranker: even, unless held-back users tell otherwise.

    It is retrieval alone, or the ranker alone, if that orders what people came to want better by STANDARD_ERRORS of the
    difference between users: they are few, and of the weeks after them they tell little. Asked is everybody once, at
    their first moment in the window: later ones are in the middle of a visit, which is not how somebody is met again.
    Without any such moment nothing speaks for retrieval: the ranker alone.

    logits (n,): the ranker's, of users it was not fitted on. retrieval (n,): inner products over the temperature.
    """
    asked = first_moments(rows)
    if not rows.reward[asked].any():
        return RANKER_ALONE
    moment = np.unique(rows.moment[asked], return_inverse=True)[1]

    def quality(share: float) -> Float64:
        score = blended(share, logits[asked], retrieval[asked])
        return weighted_ndcg(score, rows.reward[asked] > 0, rows.weight[asked], moment)

    even = quality(EVEN)
    for share in (RETRIEVAL_ALONE, RANKER_ALONE):
        gain = quality(share) - even
        if len(gain) > 1 and gain.mean() > STANDARD_ERRORS * gain.std(ddof=1) / np.sqrt(len(gain)):
            return share
    return EVEN


def first_moments(rows: RankerRows) -> Int64:
    """The rows (m,) of everybody's first moment that was no slate, of items that training knew."""
    pools = np.flatnonzero(~rows.shown & (rows.features[:, _KNOWN] > 0))
    first = np.full(int(rows.user.max(initial=0)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, rows.user[pools], rows.moment[pools])
    chosen: Int64 = pools[rows.moment[pools] == first[rows.user[pools]]]
    return chosen


def weighted_ndcg(score: Float64, wanted: Bool, weight: Float64, moment: Int64) -> Float64:
    """NDCG over the whole list of each moment in which something is wanted, (moments,): it looks at the front most, and
    at everything.

    weight (n,): places that a row takes, a sampled one those of all that it stands for; a wanted one takes its own. A
    tie ranks against the wanted. score, wanted, moment: (n,).
    """
    order = np.lexsort((wanted, -score, moment))
    moment, wanted, weight = moment[order], wanted[order], weight[order]
    number = np.unique(moment[wanted], return_inverse=True)[1]
    place = 1 + _running(weight, moment)[wanted] - weight[wanted]
    best = _running(np.ones(len(number)), number)
    found: Float64 = np.bincount(number, 1 / np.log2(1 + place)) / np.bincount(number, 1 / np.log2(1 + best))
    return found


def _running(values: Float64, group: Int64) -> Float64:
    """Running totals (n,) that begin anew in each group, of which the rows are neighbours, groups ascending."""
    total = np.cumsum(values)
    return total - (total - values)[np.searchsorted(group, group)]

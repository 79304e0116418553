"""The gate in front of serving: what it says of a release, and where that is kept."""

import math
import time
from collections.abc import Collection
from pathlib import Path

import msgspec

from feature_store.contracts.errors import UNREADABLE, ReleaseRefused
from feature_store.contracts.manifest import Manifest
from feature_store.durable import write_file
from offline_training.evaluation.comparison import NDCG, Comparison
from offline_training.evaluation.differences import CHAMPION, EVERYBODY, RECENT_POPULARITY, Difference
from offline_training.evaluation.shown import SLATES

RECALL_MARGIN = 0.8  # of popularity's recall on the validation window: retrieval feeds a ranker that knows popularity
CHAMPION_MARGIN = 0.5  # of the champion's hit rate, which was measured on another window
RECALL = "validation_{}_recall_at_50"
COVERAGE = 0.99  # of the items; training connects every one
HIT_RATE = "validation_retrieval_hit_rate_at_10"
LEAST_USERS = 30  # from which on a normal interval is believed


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate said of a release, last time it was asked.

    champion: what it was compared with; None: nothing served, or not_compared says why it was not. reasons: against
    serving it, none if it may serve. override: why somebody had it serve all the same.
    """

    release: str
    time: int  # ms since the epoch
    champion: str | None
    not_compared: str | None
    reasons: list[str]
    override: str | None
    comparison: Comparison | None = None  # in pairs, on what neither had seen

    @property
    def passed(self) -> bool:
        """Whether it may serve."""
        return not self.reasons or self.override is not None

    def save(self, verdicts: Path) -> None:
        """Writes `<verdicts>/<release>.json`."""
        verdicts.mkdir(parents=True, exist_ok=True)
        write_file(verdicts / f"{self.release}.json", msgspec.json.format(msgspec.json.encode(self)))

    @classmethod
    def load(cls, verdicts: Path, release: str) -> "Verdict | None":
        """Reads what save wrote; None if the gate was never asked. Raises ReleaseRefused if it is damaged."""
        path = verdicts / f"{release}.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise ReleaseRefused(f"{path} is not a verdict: {error}. Delete it.") from None


def judge(
    release: str,
    candidate: Manifest,
    champion: tuple[str, Manifest] | None,
    not_compared: str | None,
    override: str | None,
    comparison: Comparison | None = None,
) -> Verdict:
    """The verdict on a release against the champion, by id and manifest; None: see not_compared."""
    compared, theirs = champion or (None, None)
    return Verdict(
        release=release,
        time=time.time_ns() // 1_000_000,
        champion=compared,
        not_compared=not_compared,
        reasons=gate(candidate, theirs, comparison),
        override=override,
        comparison=comparison,
    )


def gate(candidate: Manifest, champion: Manifest | None, comparison: Comparison | None = None) -> list[str]:
    """Reasons against serving the candidate; none if it may serve. Metrics that either side lacks are not compared, and
    a shortfall that two standard errors explain is none. What was compared in pairs counts if its interval says so
    surely: the served order against recent popularity, and the order within slates against the champion, if enough was
    explored to weigh out that the champion chose them."""
    metrics = candidate.metrics
    reasons = [
        f"metric {name} is {value}"
        for name, value in sorted(metrics.items())
        if not math.isfinite(value) and not name.endswith("_error")  # one user alone has no standard error
    ]
    recall, popularity = metrics.get(RECALL.format("retrieval")), metrics.get(RECALL.format("popularity"))
    error = metrics.get(RECALL.format("retrieval") + "_error", 0.0)
    if recall is not None and popularity is not None and recall + 2 * error < RECALL_MARGIN * popularity:
        reasons.append(
            f"recall@50 of retrieval is {recall:.3f}, below {RECALL_MARGIN} of popularity's {popularity:.3f}"
        )
    coverage = metrics.get("graph_coverage")
    if coverage is not None and coverage < COVERAGE:
        reasons.append(
            f"{coverage:.1%} of the items are connected to clusters of users, below {COVERAGE:.0%}: who likes the "
            "others cannot be learnt"
        )
    if comparison is not None:
        counted = [(RECENT_POPULARITY, NDCG)]
        if comparison.evidence is not None and comparison.evidence.tells:
            counted.append((CHAMPION, SLATES))
        reasons += [_loss(one) for one in comparison.differences if _is_lost(one, counted)]
    hit_rate = metrics.get(HIT_RATE)
    before = None if champion is None else champion.metrics.get(HIT_RATE)
    if hit_rate is not None and before is not None:
        users = metrics.get("validation_users", math.inf)
        error = math.sqrt(before * (1 - before) / users)  # of a share of that many users
        if hit_rate + 2 * error < CHAMPION_MARGIN * before:
            reasons.append(f"hit rate@10 is {hit_rate:.3f}, below {CHAMPION_MARGIN} of the champion's {before:.3f}")
    return reasons


def _is_lost(difference: Difference, counted: Collection[tuple[str, str]]) -> bool:
    """Whether it surely speaks against the release. Slices are reported, and are no reason."""
    asked = (difference.against, difference.metric)
    known = difference.among == EVERYBODY and difference.users >= LEAST_USERS and asked in counted
    return known and difference.high is not None and difference.high < 0.0


def _loss(difference: Difference) -> str:
    return (
        f"{difference.metric} is {difference.release:.4f}, that of {difference.against} {difference.other:.4f} on the "
        f"same {difference.users:,} users (difference at most {difference.high:+.4f})"
    )

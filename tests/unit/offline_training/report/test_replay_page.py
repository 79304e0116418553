import msgspec
import numpy as np

from offline_training.experiment.statistics import Interval
from offline_training.off_policy.estimators import evaluate
from offline_training.off_policy.slate_log import single_decisions
from offline_training.replay.replay import Replay, Reproduction
from offline_training.report.replay_page import render, story


def found(decisions: int, change: Interval) -> Replay:
    log = single_decisions(
        np.arange(decisions),
        np.tile([0.0, 1.0], decisions // 2),
        np.full(decisions, 0.5),
        np.full(decisions, 0.5),
        unsupported=np.zeros(decisions),
    )
    return Replay(
        candidate="<bolder>",
        variant="explore",
        first=0,
        last=86_400_000,
        left_out={"made too early": 7},
        thinned_from=1_000,
        logged=Interval(value=0.4, low=0.3, high=0.5),
        evaluation=evaluate(log),
        difference=change,
        reproduced=Reproduction(slots=50, equal=0.98, mean_difference=0.001),
    )


def test_a_sure_difference_is_said_to_be_one() -> None:
    sentences = story(found(200, Interval(value=0.1, low=0.02, high=0.18)))
    assert sentences[0].startswith("<bolder> would have earned 500.0 (")
    assert "surely more than what was logged, 400.0 (300.0 to 500.0)" in sentences[0]
    assert sentences[1] == "The difference is +100.0 (20.0 to 180.0), paired by user."


def test_an_unsure_one_is_not() -> None:
    sentences = story(found(200, Interval(value=-0.1, low=-0.3, high=0.1)))
    assert "which cannot be told from what was logged" in sentences[0]


def test_a_refusal_names_no_value() -> None:
    refused = msgspec.structs.replace(found(20, Interval(value=0.1, low=0.02, high=0.18)), difference=None)
    assert story(refused) == [
        "This log cannot tell. What was logged earned 400.0 (300.0 to 500.0) per 1,000 recommendations."
    ]
    page = render(refused)
    assert "Refused: At position 1 the 20 logged decisions are worth only 20.0" in page


def test_the_page_says_what_was_left_out_and_escapes_names() -> None:
    page = render(found(200, Interval(value=0.1, low=0.02, high=0.18)))
    assert "7 decisions left out: made too early." in page
    assert "Thinned evenly from 1,000 decisions." in page
    assert "98.0% of 50" in page
    assert "<bolder>" not in page
    assert "&lt;bolder&gt;" in page
    assert page.count("<svg") == 1

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from rich.console import Console

from offline_training.experiment.loop_metrics import Curve, Discovery, ExploredShare, LoopMetrics
from offline_training.experiment.statistics import Arm, Comparison, Difference, Interval, SampleRatio
from offline_training.off_policy.estimators import OffPolicyEvaluation, PolicyValue
from offline_training.off_policy.overlap import Overlap
from offline_training.report import text as report_text
from offline_training.report.data import LoopReport, ModelQuality, Traffic, delay, figures
from offline_training.report.report import alarms, log_to_mlflow, render, summary_table, write_report
from offline_training.simulation.freshness import Delays


def between(value: float, low: float, high: float) -> Interval:
    return Interval(value=value, low=low, high=high)


def change(planned: Interval, variant: str = "explore", control: str = "frozen") -> Difference:
    """A paired difference, with wider intervals around it."""
    wide = [Interval(value=planned.value, low=(planned.low or 0) - by, high=(planned.high or 0) + by) for by in (1, 2)]
    return Difference(
        variant=variant, control=control, paired=planned, people=250, unpaired=wide[0], always_valid=wide[1]
    )


TOGETHER, LEARNING, EXPLORING = between(10, 3, 17), between(12, 4, 20), between(-2, -5, 1)


def report(
    together: Interval = TOGETHER,
    learning: Interval = LEARNING,
    exploring: Interval = EXPLORING,
    equal: bool = True,
    p_value: float = 0.4,
    ope_warning: str | None = None,
) -> LoopReport:
    arms = {"frozen": between(50, 45, 55), "greedy": between(62, 50, 74), "explore": between(60, 54, 66)}
    overlap = Overlap(
        decisions=400,
        position=10,
        effective_size=120,
        max_weight=9,
        max_weight_share=0.02,
        mean_weight=1.01,
        warning=ope_warning,
    )
    curves = [Curve(variant=name, x=[1.0, 2.0], y=[40.0, found.value]) for name, found in arms.items()]
    loop = LoopMetrics(
        decisions=1_000,
        impressions=10_000,
        reward=555,
        seconds=30,
        comparison=Comparison(
            arms=[
                Arm(variant=name, users=100, impressions=3_000, reward=180, per_thousand=found)
                for name, found in arms.items()
            ],
            differences=[change(learning, "greedy"), change(together)],
            sample_ratio=SampleRatio(
                observed=dict.fromkeys(arms, 100),
                expected=dict.fromkeys(arms, 100.0),
                chi_square=0,
                p_value=p_value,
                broken=p_value < 1e-3,
            ),
            confidence=0.95,
        ),
        exploring=change(exploring, control="greedy"),
        exploration=[ExploredShare(variant=name, explored=0.19, configured=0.2) for name in arms],
        new_items=25,
        discovery=[
            Discovery(
                variant=name,
                impressions=3_000,
                impressions_of_new=300,
                discovered={1: 12, 3: 5, 5: 2},
                per_thousand={1: 4, 3: 1.67, 5: 0.67},
                at_equal_impressions={1: 12, 3: 5, 5: 2},
            )
            for name in arms
        ],
        cumulative_reward=curves,
        reward_over_time=curves,
        discovery_curves=curves,
        explorer="explore",
        greedy="greedy",
        off_policy=OffPolicyEvaluation(
            decisions=400,
            users=100,
            headline="RIPS",
            estimates=[PolicyValue(estimator="RIPS", value=between(0.058, 0.048, 0.068), overlap=overlap)],
        ),
    )
    fast = delay(Delays(samples_ms=[20.0, 30.0, 40.0], open=1))
    return LoopReport(
        data_set="<b>odd</b> & data",
        people=269,
        items=1_682,
        interactions=100_000,
        seed=0,
        positive_value=4,
        created_ms=0,
        loop=loop,
        traffic=Traffic(
            seconds=30,
            visits=1_000,
            visits_unlogged=7,
            users=300,
            users_satisfied=10,
            users_unserved=1,
            rewards_possible=2_000,
            errors={"POST /v1/feedback: 503": 2},
            error_examples={"POST /v1/feedback: 503": "<script>alert(1)</script>"},
            items_entered=25,
            items_failed=0,
            items_never_shown=1,
            items_shown_too_early=0,
            request=fast,
            feedback_to_parameters=fast,
            feedback_to_answer=delay(Delays(unmeasured="the API's recommendations carry no parameter offsets")),
            item_to_servable=fast,
            item_to_impression=fast,
        ),
        quality=[
            ModelQuality(name="release 1", baseline=False, metrics={"recall@50": 0.3}),
            ModelQuality(name="popularity", baseline=True, metrics={"recall@50": 0.2}),
        ],
        state_equals_replay=equal,
        state_largest_difference=1e-16 if equal else 0.5,
        stage_seconds={"training": 12.5},
    )


@pytest.mark.parametrize(
    ("planned", "always", "words"),
    [
        (between(10, 2, 18), between(10, 1, 19), "better, also by the always-valid interval"),
        (between(-10, -18, -2), between(-10, -19, -1), "worse, also by the always-valid interval"),
        (between(10, 2, 18), between(10, -3, 23), "not yet by the always-valid interval"),
        (between(10, -2, 22), between(10, -8, 28), "not distinguishable yet"),
        (Interval(value=10, low=None, high=None), Interval(value=10, low=None, high=None), "not distinguishable yet"),
    ],
)
@pytest.mark.parametrize("paired", [True, False])
def test_no_more_is_claimed_than_the_intervals_carry(
    planned: Interval, always: Interval, words: str, paired: bool
) -> None:
    found = change(between(0, -1, 1))
    intervals = {"paired": planned} if paired else {"paired": None, "unpaired": planned}
    found = msgspec.structs.replace(found, always_valid=always, **intervals)
    assert words in report_text.verdict(found)


UNKNOWN = Interval(value=10, low=None, high=None)


@pytest.mark.parametrize(
    ("learning", "words"),
    [
        (between(12, 4, 20), "Learning paid: greedy, which orders by what was learnt online, earned 12.0 (4.0 to 20"),
        (between(-12, -20, -4), "Learning did not pay: greedy, which orders by what was learnt online, earned 12.0 ("),
        (between(-1, -4, 2), "Whether learning paid cannot be told from this run: greedy, which orders by what was "),
        (UNKNOWN, "Whether learning paid cannot be told from this run: greedy"),
    ],
)
def test_the_first_sentence_says_whether_learning_paid(learning: Interval, words: str) -> None:
    sentence = report_text.headline(report(learning=learning))[0]
    assert sentence.startswith(words)
    assert f" {'fewer' if learning.value < 0 else 'more'} likes per 1,000 " in sentence
    assert sentence.endswith("than frozen, which does not (50.0), with the same 250 people in both.")


@pytest.mark.parametrize(
    ("exploring", "words"),
    [
        (between(-3, -5, -1), "Exploring had a price: explore earned 3.0 (1.0 to 5.0) fewer likes"),
        (between(3, 1, 5), "Exploring cost nothing: explore earned 3.0 (1.0 to 5.0) more likes"),
        (between(-2, -5, 1), "Whether exploring cost anything cannot be told from this run: explore earned 2.0 (-1.0"),
    ],
)
def test_the_second_sentence_says_what_exploring_cost_and_found(exploring: Interval, words: str) -> None:
    sentence = report_text.headline(report(exploring=exploring))[1]
    assert sentence.startswith(words)
    assert "of 25 new items it found 12 / 5 / 2 that were liked at least 1 / 3 / 5 times" in sentence
    assert sentence.endswith("(frozen: 12 / 5 / 2; greedy: 12 / 5 / 2).")


def test_what_nobody_met_is_not_answered() -> None:
    full = report()
    comparison = msgspec.structs.replace(full.loop.comparison, differences=full.loop.comparison.differences[1:])
    loop = msgspec.structs.replace(full.loop, comparison=comparison, exploring=None, greedy=None)
    learning, exploring, together, *_ = report_text.headline(msgspec.structs.replace(full, loop=loop))
    assert learning.startswith("Whether learning paid cannot be told: ")
    assert exploring.startswith("What exploring cost cannot be told")
    assert "+10.0 (3.0 to 17.0)" in together


def test_the_story_goes_on_with_what_happened() -> None:
    _, _, together, what, fast = report_text.headline(report())
    assert "explore against frozen: +10.0 (3.0 to 17.0) likes" in together
    assert together.endswith("; unpaired +10.0 (2.0 to 18.0).")
    assert "tastes of 269 real people, a twin of each in every variant, came 1,000 times" in what
    assert "2 requests failed" in what
    assert "30 ms" in fast
    assert "58.0 (48.0 to 68.0), fits its measured 62.0 (50.0 to 74.0)" in fast


def test_an_estimate_without_overlap_is_not_compared() -> None:
    assert "overlaps too little" in report_text.headline(report(ope_warning="worth only 2"))[-1]


def test_agreement_by_hand() -> None:
    # Half-widths 3 and 4 combine to 5.
    assert report_text.agreement(between(10, 7, 13), between(14.9, 10.9, 18.9)) == "fits"
    assert report_text.agreement(between(10, 7, 13), between(15.1, 11.1, 19.1)) == "does not fit"
    assert report_text.agreement(between(10, 7, 13), Interval(value=1, low=None, high=None)) is None


def test_the_page_is_self_contained_and_escaped() -> None:
    page = render(report())
    assert "&lt;b&gt;odd&lt;/b&gt; &amp; data" in page
    assert "<script" not in page
    assert page.count("<figure>") == page.count("<svg") == 8
    for outside in ("http://", "https://", "src=", "@import", "url("):
        found = page.replace("http://www.w3.org/", "").replace("https://matplotlib.org/", "").replace("url(#", "")
        found = found.replace("http://purl.org/", "").replace("http://creativecommons.org/", "")
        assert outside not in found, outside
    assert "not measured: the API&#39;s recommendations carry no parameter offsets" in page
    assert "lower bound" in page
    assert "7 of 1,000 visits were" in page


def test_alarms_come_first() -> None:
    assert alarms(report()) == []
    mismatch, state = alarms(report(equal=False, p_value=1e-6))
    assert "Sample ratio mismatch" in mismatch
    assert "lost or counted twice" in state
    assert "DOES NOT equal" in render(report(equal=False))


def test_the_terminal_summary_fits_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(summary_table(report()))
    text = console.export_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.startswith("Learning paid: ")
    assert "60.0 (54.0 to 66.0)" in text
    assert "paired +10.0 (3.0 to 17.0)" in " ".join(text.split())
    assert "12/5/2" in text


def test_delays() -> None:
    found = delay(Delays(samples_ms=[float(n) for n in range(101)]))
    assert (found.count, found.p50_ms, found.p99_ms, found.quantiles_ms[1]) == (101, 50, 99, 2)
    assert delay(Delays()).p50_ms is None
    assert report_text.delay(delay(Delays(open=3))) == "no sample (3 still open)"


@given(st.floats(0, 1e9))
def test_milliseconds_have_a_unit(value: float) -> None:
    assert report_text.milliseconds(value).endswith((" ms", " s", " min"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow uses what SQLAlchemy deprecates
def test_everything_reaches_the_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow puts artifacts when no server holds them
    page = tmp_path / "report.html"
    write_report(report(), page)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id = log_to_mlflow(report(), page, uri, "loop")
    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(run_id)
    expected = figures(report())
    assert run.info.status == "FINISHED"
    assert len(run.data.metrics) == len(expected)
    assert run.data.metrics["arm.explore.reward_per_1000"] == 60
    assert run.data.metrics["difference.greedy.low"] == 4
    assert run.data.metrics["exploring.value"] == -2
    assert run.data.metrics["feedback_to_parameters.p50_ms"] == 30
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"report.html", "report.json"}

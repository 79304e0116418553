"""`matchloop experiment` from a file to a report, on a real Redis and a log made by hand."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from feature_store.contracts.columns import ITEMS
from feature_store.contracts.events import Event
from feature_store.contracts.experiments import Experiment, Variant
from infra.upkeep import keep_reports
from offline_training.promotion.registry import mlflow_client
from tests.api_server import wait_until
from tests.command_line import matchloop
from tests.experiment_log import decision, feedback, running, write_log
from tests.lakes import put

FILE = """
name = "wider"
hypothesis = "More than one likes."
planned_users = 200
[variants.now]
[variants.wide]
bandit = { alpha = 2.0 }
"""


@pytest.fixture
def home(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    variables = {"HOME": str(tmp_path), "REDIS_URL": redis_url, "REDIS_PREFIX": tmp_path.name}
    for name, value in variables.items():
        monkeypatch.setenv(f"MATCHLOOP_{name}", value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "wider.toml").write_text(FILE)
    return tmp_path


def answer(*arguments: str) -> Any:
    return json.loads(matchloop("experiment", *arguments, "--json"))


def log_of(now: int) -> list[Event]:
    """Users of both variants, as the assignment deals them; those of `wide` like everything, the others a half."""
    dealt = Experiment(name="wider", variants=(Variant(name="now"), Variant(name="wide")))
    events: list[Event] = []
    for n in range(200):
        variant = dealt.variant_of(f"u{n}").name
        made = decision(f"d{n}", f"u{n}", f"wider={variant}", now + n, ["a", "b"])
        events.append(made)
        events += [feedback(f"f{k}", made, item) for k, item in enumerate("ab") if variant == "wide" or (n + k) % 2]
    return events


def test_from_a_file_to_a_verdict(home: Path) -> None:
    made = answer("create", str(home / "wider.toml"))
    assert (made["status"], made["share"], made["testers"]) == ("draft", 0.0, 0)
    started = answer("start", "wider", "0.5")
    assert (started["status"], started["share"]) == ("running", 0.5)
    assert answer("ramp", "wider", "1.0")["share"] == 1.0
    assert [one["name"] for one in answer("list")] == ["wider"]
    assert answer("status", "wider")["variants"][1]["bandit"] == {"alpha": 2.0}

    write_log(home / "lake", [log_of(int(time.time() * 1000))])
    report = answer("report", "wider")
    assert report["users"] == 200
    assert (report["verdict"]["answer"], report["verdict"]["variant"]) == ("better", "wide")
    assert report["verdict"]["sentence"] in (home / "experiments" / "wider.html").read_text()
    needed = answer("plan", str(home / "wider.toml"))
    assert needed["users_at_any_look"] > needed["users"] > 0
    assert answer("stop", "wider")["status"] == "stopped"


def test_traffic_moves_to_the_better_variant_with_a_ramp(home: Path) -> None:
    (home / "wider.toml").write_text('allocation = "thompson"\n' + FILE)
    answer("create", str(home / "wider.toml"))
    answer("start", "wider", "0.5")
    write_log(home / "lake", [log_of(int(time.time() * 1000))])
    grown = answer("ramp", "wider", "1.0")
    assert [share for _, share, _ in grown["ramps"]] == [0.5, 1.0]
    assert grown["ramps"][-1][2] == pytest.approx([0.1, 0.9], abs=0.01)  # `wide` is better, `now` keeps a fifth
    report = answer("report", "wider")  # of a log in which nobody was dealt so
    assert report["left_out"]["moved"] > 20


def test_a_test_that_parts_the_catalogue_is_about_the_items(home: Path) -> None:
    (home / "wider.toml").write_text('unit = "item"\n' + FILE)
    answer("create", str(home / "wider.toml"))
    answer("start", "wider", "1.0")
    parted = running("wider", unit="item", variants=(Variant(name="now"), Variant(name="wide")))
    items = [f"i{n}" for n in range(100)]
    put(
        home / "lake" / "items" / "items.parquet",
        ITEMS,
        [{"item": item, "title": item, "attributes": "{}"} for item in items],
    )
    own = [[item for item in items if parted.corpus(item) == number] for number in (0, 1)]
    now, events = int(time.time() * 1000), list[Event]()
    for n in range(400):  # `now` shows three of its items, `wide` goes through all of them
        number = int(parted.variant_of(f"u{n}").name == "wide")
        shown = own[number][:3] if not number else [own[number][(3 * n + k) % len(own[number])] for k in range(3)]
        made = decision(f"d{n}", f"u{n}", f"wider={('now', 'wide')[number]}", now + n, shown)
        events += [made, *(feedback(f"f{n}-{item}", made, item) for item in shown)]
    write_log(home / "lake", [events])
    report = answer("report", "wider")
    assert (report["verdict"]["answer"], report["verdict"]["variant"]) == ("better", "wide")
    assert [part["items"] for part in report["parts"]] == [len(part) for part in own]
    assert report["parts"][0]["discoverable"]["value"] == pytest.approx(3 / len(own[0]))


# MLflow's SQL store, which lives in the server otherwise, uses what its libraries are about to drop.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_reports_of_all_that_run_are_renewed_and_one_that_fails_is_told_of(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)  # where MLflow keeps artifacts
    uri, said = f"sqlite:///{home}/mlflow.db", home / "said"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MATCHLOOP_NOTIFY_COMMAND", f"sh -c 'cat >> {said}; echo >> {said}'")
    (home / "unmet.toml").write_text(FILE.replace('"wider"', '"unmet"\nlayer = "other"').replace("alpha", "edge_prior"))
    (home / "draft.toml").write_text(FILE.replace('"wider"', '"draft"'))
    for name in ("draft", "wider", "unmet"):
        answer("create", str(home / f"{name}.toml"))
    for name in ("unmet", "wider"):
        answer("start", name, "1.0")
    write_log(home / "lake", [log_of(int(time.time() * 1000))])
    stop = threading.Event()
    keeping = threading.Thread(target=keep_reports, args=(0.01, None, stop))
    keeping.start()
    try:
        wait_until(lambda: said.exists() and said.read_text().count("\n") >= 2)  # the second time: the first has ended
    finally:
        stop.set()
        keeping.join()
    told = [json.loads(line) for line in said.read_text().splitlines()]
    assert {one["event"] for one in told} == {"refusal"}
    assert all("has no decision on users of experiment 'unmet'" in one["words"] for one in told)
    assert {path.name for path in (home / "experiments").glob("*.html")} == {"wider.html"}
    with mlflow_client(uri) as client:
        names = {one.name: one.experiment_id for one in client.search_experiments()}
        assert {name for name in names if "/" in name} == {"matchloop/wider"}
        runs = client.search_runs([names["matchloop/wider"]])
        dealt = [run.data.metrics["users"] for run in runs]
    assert (len(dealt), sum(dealt)) == (2, 200)  # a run a variant, however often it was renewed

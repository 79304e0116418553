"""The dashboard in a real browser: what the metrics say, and what is known of a user and of an item."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from infra.benchmarks.small_release import items
from infra.overview import Judged, Overview
from offline_training.experiment.outcomes import everybody
from offline_training.experiment.trend import trend
from offline_training.promotion.gate import Verdict
from offline_training.promotion.releases import Release
from online_serving.audit import newest
from online_serving.settings import Boosting, Surface
from streaming.settings import RewardSettings
from tests.api_server import Installation, running

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Page, expect

from tests.browser import PATIENCE_MS, needs_browser, news, opened
from tests.experiment_log import LOG, decision, feedback, write_log

pytestmark = needs_browser

CATALOGUE = items(30)
SAMPLES = {  # of two API processes and an updater
    "api": [
        ["matchloop_http_requests_total", {"route": "/v1/recommendations", "status": "200"}, 60.0],
        ["matchloop_http_requests_total", {"route": "/v1/feedback", "status": "503"}, 2.0],
        *(["matchloop_http_seconds_bucket", {"route": "/v1/recommendations", "le": le}, count]
          for le, count in (("0.01", 10.0), ("0.02", 30.0), ("+Inf", 30.0))),
        ["matchloop_decisions_total", {"variant": "demo=<greedy>"}, 20.0],
        ["matchloop_places_total", {"variant": "demo=<greedy>"}, 200.0],
        ["matchloop_explored_places_total", {"variant": "demo=<greedy>"}, 13.0],
    ],
    "api-2": [
        ["matchloop_http_requests_total", {"route": "/v1/recommendations", "status": "200"}, 40.0],
        *(["matchloop_http_seconds_bucket", {"route": "/v1/recommendations", "le": le}, count]
          for le, count in (("0.01", 10.0), ("0.02", 30.0), ("+Inf", 30.0))),
        ["matchloop_decisions_total", {"variant": "demo=<greedy>"}, 5.0],
    ],
    "updater": [
        ["matchloop_updater_lag_records", {"namespace": "n", "partition": "0"}, 3.0],
        ["matchloop_updater_lag_records", {"namespace": "n", "partition": "1"}, 4.0],
        ["matchloop_updater_events_total", {"outcome": "learnt"}, 1234.0],
        ["matchloop_updater_events_total", {"outcome": "dead"}, 5.0],
        ["matchloop_updater_events_total", {"outcome": "unreadable"}, 6.0],
    ],
}  # fmt: skip
SINK = {"name": "sink", "state": "RUNNING", "problem": "It waits.", "quarantined": [], "healthy": False}
DAY = 86_400_000
VERDICT = Verdict(release="r2", time=2, champion="r1", not_compared=None, reasons=["recall@50 <fell>"], override=None)
RELEASES = [
    Release(id="r1", roles=["champion"], namespaces=[], bytes=1, verdict=None, created=DAY),
    Release(id="r2", roles=["challenger"], namespaces=[], bytes=1, verdict=VERDICT, created=2 * DAY),
]


def overview_of(lake: Path) -> Overview:
    """Of a log of two days with one variant: one like of two impressions, and then two of two."""
    made = [decision(f"d{day}", f"u{day}", "demo=<greedy>", day * DAY, ["a", "new"]) for day in (0, 1)]
    likes = [feedback("f0", made[0], "a"), feedback("f1", made[1], "a"), feedback("f2", made[1], "new")]
    write_log(lake, [[*made, *likes]])
    earned = trend(everybody(lake, [LOG], 0, RewardSettings()), {"new", "unseen"}, 2 * DAY - 1, 2)
    judged = [Judged(name="demo", share=0.5, verdict="Too early to say.")]
    return Overview(made=0, releases=RELEASES, experiments=judged, trend=earned, nothing=None)


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    found = msgspec.to_builtins(overview_of(tmp_path_factory.mktemp("lake")), str_keys=True)

    def overview() -> dict[str, Any]:
        return {
            "endpoints": {"mlflow": "http://127.0.0.1:15000"},
            "programs": [SINK],
            "schedule": None,
            "metrics": SAMPLES,
            "overview": found,
            "no_overview": None,
            "audit": newest(home, 20),
        }

    with Installation(broker, redis_url, home, "dashboard") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        surfaces = {"default": Surface(boosts={"has(promoted)": Boosting(factor=3.0)})}
        links = {"Grafana": "https://grafana.example/d/1"}
        config = made.config(surfaces=surfaces, dashboard_links=links)
        with running(dataclasses.replace(config, overview=overview)) as client:
            yield client


def said(page: Page, panel: str, words: str) -> str:
    row = page.locator(f"#{panel} > div").filter(has=page.get_by_text(words, exact=True))
    expect(row).to_have_count(1, timeout=PATIENCE_MS)
    return row.locator("dd").inner_text()


def test_figures_are_those_of_the_metrics_over_all_processes(browser: Browser, api: httpx.Client) -> None:
    with opened(browser, api.base_url.join("/dashboard")) as page:
        news(page, "sink: It waits")
        assert said(page, "serves", "Release") == api.get("/v1/parameters").json()["release"]
        assert said(page, "traffic", "Requests answered") == "102"
        assert said(page, "traffic", "Failed (5xx)") == "2"
        # 20 of 60 took up to 10 ms, 40 up to 20 ms: the 30th is the 10th of these 40.
        assert said(page, "traffic", "Recommendations, median") == "12.5\N{NO-BREAK SPACE}ms"
        assert said(page, "learning", "Records not folded yet") == "7"
        assert said(page, "learning", "Dead letters") == "11"
        assert said(page, "events", "learnt") == "1,234"
        assert said(page, "variants", "demo=<greedy>") == "25"
        assert said(page, "explored", "Surface default") == "10.0 % of places"
        assert said(page, "programs", "sink") == "running, not ready"
        expect(page.get_by_role("link", name="MLflow")).to_have_attribute("href", "http://127.0.0.1:15000")
        expect(page.get_by_role("link", name="Grafana")).to_have_attribute("href", "https://grafana.example/d/1")
        expect(page.get_by_role("link", name="Playground")).to_be_hidden()
        assert said(page, "explored", "Seen, demo=<greedy>") == "6.5 % of places"


def test_what_the_log_says_is_shown(browser: Browser, api: httpx.Client) -> None:
    with opened(browser, api.base_url.join("/dashboard")) as page:
        earned = page.locator("#earned .variant")
        expect(earned).to_have_count(1, timeout=PATIENCE_MS)
        # 3 likes of 4 impressions; influences -1/8 and 1/8, a standard error of 1/4, 12.7 of them to each side.
        expect(earned).to_contain_text("demo=<greedy>750.0 (-2426.6 to 3926.6) 2 slates, 2 users")
        expect(earned.get_by_role("img", name="over time: 500.0, 1000.0.")).to_be_visible()
        expect(page.locator("#earned-about")).to_contain_text("in stretches of 1 day.")
        expect(page.locator("#releases")).to_contain_text("challenger: r2, made 3 Jan 1970")
        expect(page.locator("#releases")).to_contain_text("The gate holds it back: recall@50 <fell>")
        expect(page.locator("#experiments")).to_contain_text("demo, 50.0 % of the users. Too early to say.")
        assert said(page, "new", "Came over the API") == "2"
        assert said(page, "new", "Discovered: liked once or more") == "1"


@pytest.mark.parametrize("width", [1280, 360])
def test_an_item_is_banned_and_boosted_and_it_is_on_record(browser: Browser, api: httpx.Client, width: int) -> None:
    item = f"i{20 + width % 7}"
    with opened(browser, api.base_url.join("/dashboard"), viewport={"width": width, "height": 800}) as page:
        page.get_by_label("Item id").fill(item)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Ban", exact=True).click()
        expect(page.locator("#item-found")).to_contain_text("It cannot be recommended", timeout=PATIENCE_MS)
        assert api.get(f"/v1/items/{item}").json()["available"] is False
        page.keyboard.press("Enter")  # the button that is there now has the focus
        expect(page.locator("#item-found")).to_contain_text("It can be recommended.", timeout=PATIENCE_MS)
        page.get_by_role("button", name="Boost: promoted").click()
        expect(page.get_by_role("button", name="No longer promoted")).to_be_visible(timeout=PATIENCE_MS)
        stored = api.get(f"/v1/items/{item}").json()
        assert (stored["available"], stored["attributes"]) == (True, {"promoted": True})
        assert stored["title"] == f"Title {item[1:]}"
        record = page.locator("#audit > li").filter(has_text=f"PUT items/{item}somebody on a page, ")
        expect(record).to_have_count(3, timeout=PATIENCE_MS)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [1280, 360])
def test_a_user_and_an_item_are_looked_up(browser: Browser, api: httpx.Client, width: int) -> None:
    with opened(browser, api.base_url.join("/dashboard"), viewport={"width": width, "height": 800}) as page:
        page.get_by_label("User id").fill("somebody new")
        page.keyboard.press("Enter")
        expect(page.locator("#user-found")).to_contain_text("Nothing is known of this user.", timeout=PATIENCE_MS)
        expect(page.locator("#user-found > ol > li")).to_have_count(8)
        page.get_by_label("Item id").fill("i3")
        page.keyboard.press("Enter")
        expect(page.locator("#item-found")).to_contain_text("Title 3", timeout=PATIENCE_MS)
        expect(page.locator("#item-found")).to_contain_text("It can be recommended.")
        expect(page.locator("#item-found")).to_contain_text("Shown with a known outcome 0 times")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_an_item_that_is_not_there_is_said_so(browser: Browser, api: httpx.Client) -> None:
    page = browser.new_page()
    page.goto(str(api.base_url.join("/dashboard")))
    page.get_by_label("Item id").fill("<b>")
    page.keyboard.press("Enter")
    expect(page.locator("#item-found")).to_contain_text("There is no item '<b>'", timeout=PATIENCE_MS)
    page.close()

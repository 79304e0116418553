"""The dashboard in a real browser: what the metrics say, and what is known of a user and of an item."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from infra.benchmarks.small_release import items
from tests.api_server import Installation, running

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Page, expect

from tests.browser import PATIENCE_MS, needs_browser, news, opened

pytestmark = needs_browser

CATALOGUE = items(30)
SAMPLES = {  # of two API processes and an updater
    "api": [
        ["matchloop_http_requests_total", {"route": "/v1/recommendations", "status": "200"}, 60.0],
        ["matchloop_http_requests_total", {"route": "/v1/feedback", "status": "503"}, 2.0],
        *(["matchloop_http_seconds_bucket", {"route": "/v1/recommendations", "le": le}, count]
          for le, count in (("0.01", 10.0), ("0.02", 30.0), ("+Inf", 30.0))),
        ["matchloop_decisions_total", {"variant": "demo=<greedy>"}, 20.0],
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
OVERVIEW = {
    "endpoints": {"mlflow": "http://127.0.0.1:15000"},
    "programs": [SINK],
    "schedule": None,
    "metrics": SAMPLES,
}


@pytest.fixture(scope="module")
def api(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    def overview() -> dict[str, Any]:
        return OVERVIEW

    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "dashboard") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        with running(dataclasses.replace(made.config(), overview=overview)) as client:
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
        expect(page.get_by_role("link", name="Playground")).to_be_hidden()


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

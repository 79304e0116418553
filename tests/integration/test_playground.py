"""The playground in a real browser: what people see, with the mouse, the keyboard and on a phone."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator

import httpx
import pytest

from feature_store.contracts.catalogue import Item
from infra.benchmarks.small_release import items
from infra.servers import free_port
from online_serving.pages.training import FILE, Training, tell
from tests.api_server import Installation, running, wait_until
from tests.updaters import start_updater

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser import PATIENCE_MS, needs_browser, news, opened

pytestmark = needs_browser

HOSTILE = Item(id="<b>\"&'/?#%", title="<img src=x onerror=alert(1)>", categories=["<script>alert(2)</script>"])
CATALOGUE = [*items(60), HOSTILE]


@pytest.fixture(scope="module")
def installation(broker: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(broker, redis_url, tmp_path_factory.mktemp("home"), "playground") as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        stop = threading.Event()
        updater = start_updater(
            made.kafka, made.broker, made.client, made.redis_settings, made.home, stop, group="playground"
        )
        yield made
        stop.set()
        updater.join()


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    config = installation.config(playground=True, playground_users=("Ada", "<i>Ben</i>"))
    with running(config) as client:
        yield client


@contextlib.contextmanager
def playing(browser: Browser, url: httpx.URL | str, **options: object) -> Iterator[Page]:
    """The playground with its first slate."""
    with opened(browser, url, **options) as page:
        expect(page.locator("#now .card")).to_have_count(5, timeout=PATIENCE_MS)
        yield page


@contextlib.contextmanager
def playing_as_nobody(browser: Browser, url: httpx.URL | str) -> Iterator[Page]:
    """The same of a visitor who has seen nothing yet."""
    with opened(browser, url) as page:
        news(page, "items for ")
        page.get_by_role("button", name="Be nobody").click()
        news(page, "items for visitor-")
        yield page


def titles(page: Page, slate: str) -> list[str]:
    return page.locator(f"#{slate} h3").all_inner_texts()


def test_a_click_is_learnt_and_the_next_slate_comes_beside_the_one_before(browser: Browser, api: httpx.Client) -> None:
    with playing(browser, api.base_url) as page:
        first = titles(page, "now")
        page.get_by_role("button", name=f"Like: {first[0]}", exact=True).click()
        news(page, rf"Learnt \d+\.\d\d s after your click\. {first[0]}: \d+\.\d % before, \d+\.\d % now\.")
        expect(page.locator("#before .card")).to_have_count(5, timeout=PATIENCE_MS)
        assert titles(page, "before") == first
        assert not set(titles(page, "now")) & set(first)
        before, now = map(float, re.findall(r"(\d+\.\d) %", page.locator("#news").inner_text()))
        assert now > before, "the user likes such items, and so did somebody like them"
        liked = page.get_by_role("button", name=f"Like: {first[0]}", exact=True)
        expect(liked).to_have_attribute("aria-pressed", "true")
        expect(liked).to_be_disabled()
        expect(page.locator("#moved li").first).to_contain_text("→")
        expect(page.locator("#chart svg")).to_have_attribute(
            "aria-label", re.compile(f"Estimate of {first[0]}.*%, .*%")
        )
        expect(page.locator("#now .rules")).to_contain_text("5 shown to you before")


def test_why_shows_every_level_with_its_uncertainty(browser: Browser, api: httpx.Client) -> None:
    with playing(browser, api.base_url) as page:
        page.get_by_text("Why?").first.click()
        rows = page.locator("details.why").first.locator("tr")
        for number, words in enumerate(("model predicts", "Such items earn", "item earned", "people like you")):
            expect(rows.nth(number)).to_contain_text(words)
        expect(rows.nth(3)).to_contain_text("±")
        group = re.compile(r"Group \d \(\d+ % of you\)")  # of the items that are connected to one of the user's
        expect(page.locator("details.why tr", has_text=group).first).to_be_attached()


def test_titles_and_ids_that_are_html_are_text(browser: Browser, api: httpx.Client) -> None:
    with playing(browser, api.base_url) as page:
        others = [item.id for item in CATALOGUE if item.id != HOSTILE.id]
        page.route("**/v1/recommendations", lambda route: route.continue_(
            post_data={**route.request.post_data_json, "exclude": others}
        ))  # fmt: skip
        page.get_by_role("button", name="Be nobody").click()
        expect(page.locator("#now h3")).to_have_text([HOSTILE.title], timeout=PATIENCE_MS)
        page.get_by_role("button", name=f"Like: {HOSTILE.title}", exact=True).click()
        news(page, "Learnt")
        expect(page.locator("#now .card, #before .card")).to_have_count(1)
        assert page.locator("main img").count() == 0
        assert page.locator("script").count() == 1
        page.get_by_text("Exploration and rules").click()
        expect(page.get_by_label(HOSTILE.categories[0], exact=True)).to_be_visible()
        assert page.locator("#users option").nth(1).get_attribute("value") == "<i>Ben</i>"


def test_with_the_keyboard_alone(browser: Browser, api: httpx.Client) -> None:
    with playing(browser, api.base_url) as page:
        focused = page.locator(":focus")

        def tab_to(words: str) -> None:
            for _ in range(60):
                page.keyboard.press("Tab")
                name = focused.evaluate(
                    "e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent"
                )
                outline = focused.evaluate("e => getComputedStyle(e).outlineStyle")
                assert outline != "none", f"the focus on {name!r} cannot be seen"
                if name.startswith(words):
                    return
            raise AssertionError(f"tabbing does not lead to {words!r}")

        tab_to("Skip to the slate")
        page.keyboard.press("Enter")
        tab_to("Like: ")
        page.keyboard.press("Enter")
        news(page, "Learnt")
        expect(page.locator("#before .card")).to_have_count(5, timeout=PATIENCE_MS)
        expect(page.locator("#now .card").first.get_by_role("button").first).to_be_focused()
        tab_to("Why?")
        page.keyboard.press("Space")
        expect(page.locator("#now details.why").first).to_have_attribute("open", "")
        tab_to("Title")
        page.keyboard.type("Typed in")
        tab_to("Categories")
        page.keyboard.type("drama, space")
        page.keyboard.press("Enter")
        expect(page.locator("#added")).to_contain_text(re.compile(r"Typed in could be recommended after \d"))
        tab_to("Remove it again")
        page.keyboard.press("Enter")
        expect(page.locator("#added")).to_contain_text("is gone again")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_on_a_phone_nothing_is_wider_than_the_page(browser: Browser, api: httpx.Client, scheme: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "has_touch": True, "is_mobile": True}
    with playing(browser, api.base_url, **phone) as page:
        for summary in page.locator("summary").all():
            summary.tap()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        red, *_ = map(
            int, re.findall(r"\d+", page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor"))
        )
        assert (red < 128) == (scheme == "dark")
        for button in page.locator("#now .acts button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["height"] >= 32, "a thumb has to hit it"


def test_what_is_left_out_and_how_much_is_explored_is_chosen(browser: Browser, api: httpx.Client) -> None:
    with playing(browser, api.base_url) as page:
        page.get_by_text("Exploration and rules").click()
        expect(page.get_by_label("default: 10 % of places")).to_be_checked()
        for category in ("drama", "space"):
            box = page.get_by_label(category, exact=True)
            if box.count():
                box.check()
                expect(page.locator("#now .rules")).to_contain_text("left out by you", timeout=PATIENCE_MS)
        wait_until(lambda: {"drama", "space"}.isdisjoint(page.locator("#now .card p").all_inner_texts()))


def test_what_is_boosted_comes_first_and_a_rule_leaves_the_rest_out(browser: Browser, api: httpx.Client) -> None:
    with playing_as_nobody(browser, api.base_url) as page:
        page.get_by_text("Exploration and rules").click()
        offered = page.locator("#boosts input")
        wanted = offered.first.input_value()
        with page.expect_request("**/v1/recommendations") as asked:
            offered.first.check()
        assert json.loads(asked.value.post_data or "")["boosts"] == {f'category == "{wanted}"': 2}
        news(page, "by what you chose")
        page.get_by_label("Nothing but").fill(f'category == "{wanted}"')
        page.keyboard.press("Enter")
        expect(page.locator("#now .rules")).to_contain_text("that your rule does not describe", timeout=PATIENCE_MS)
        assert all(wanted in words for words in page.locator("#now .card h3 + p").all_inner_texts())
        expect(page.locator("#before .card")).to_have_count(5)


def test_a_rule_that_cannot_be_read_is_explained(browser: Browser, api: httpx.Client) -> None:
    page = browser.new_page()
    page.goto(str(api.base_url))
    news(page, "items for ")
    page.get_by_role("button", name="Be nobody").click()
    news(page, "items for visitor-")
    page.get_by_text("Exploration and rules").click()
    page.get_by_label("Nothing but").fill("price <")
    page.keyboard.press("Enter")
    news(page, "filter")
    page.close()


def test_the_pages_load_nothing_from_elsewhere_and_are_cached(api: httpx.Client) -> None:
    page = api.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    loaded = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(loaded) >= 4
    for path in loaded:
        found = api.get(path)
        assert found.status_code == 200, path
        if path.startswith("/pages/"):
            assert found.headers["x-content-type-options"] == "nosniff"
            assert "http" not in found.text.replace("http://www.w3.org", ""), path
            assert api.get(path, headers={"if-none-match": found.headers["etag"]}).status_code == 304
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", page.text), "nothing in line"


def test_there_is_no_page_unless_it_is_asked_for(installation: Installation) -> None:
    with running(installation.config(), ready=False) as client:
        assert client.get("/").status_code == 404
        assert client.get("/dashboard").status_code == 200
    with running(installation.config(dashboard=False), ready=False) as client:
        assert {client.get(path).status_code for path in ("/dashboard", "/dashboard.json", "/pages/page.js")} == {404}


def test_it_tells_how_far_a_training_is_and_turns_into_what_was_trained(
    browser: Browser, installation: Installation
) -> None:
    config, port = installation.config(playground=True), free_port()
    with contextlib.closing(browser.new_context(viewport={"width": 360, "height": 740}, is_mobile=True)) as context:
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        told, cards = page.locator("#training"), page.locator("#now .card")
        tell(installation.home, Training("ratings", 3, 4, "Train", 0.434, "epoch 2"))
        with running(config, port=port):
            page.goto(f"http://127.0.0.1:{port}/")
            expect(told).to_contain_text("trains on ratings: step 3 of 4 (Train), 43 %, epoch 2.")
            expect(cards).to_have_count(5)
            page.get_by_role("button", name="Like: ").first.click()
            news(page, "Learnt")
            tell(installation.home, Training("ratings", 4, 4, "Serve", 0.5, ""))
            expect(told).to_contain_text("step 4 of 4 (Serve), 50 %.")
            assert page.evaluate("document.documentElement.scrollWidth") == 360
        expect(told).to_contain_text("What was trained on ratings is being loaded")
        (installation.home / FILE).unlink()
        with running(config, port=port):
            expect(told).to_be_hidden()
            expect(cards).to_have_count(5)


def test_behind_a_key_the_browser_asks_for_it(browser: Browser, installation: Installation) -> None:
    with running(installation.config(playground=True, api_key="sesame")) as client:
        assert client.get("/").headers["www-authenticate"].startswith("Basic ")
        assert client.get("/pages/playground.js").status_code == 401
        with playing(browser, client.base_url, http_credentials={"username": "me", "password": "sesame"}) as page:
            page.get_by_role("button", name="Like: ").first.click()
            news(page, "Learnt")
        wrong = browser.new_context(http_credentials={"username": "me", "password": "wrong"})
        with contextlib.suppress(Error):  # Chromium gives the request up
            refused = wrong.new_page().goto(str(client.base_url))
            assert refused is not None
            assert refused.status == 401
        wrong.close()

"""A real browser for tests, where there is one."""

import contextlib
import re
import shutil
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install -e '.[dev]'")
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 60_000  # of a busy machine

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")


@contextlib.contextmanager
def opened(browser: Browser, url: httpx.URL | str, **options: object) -> Iterator[Page]:
    """A page. Whatever the browser complains about fails the test."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    complaints: list[str] = []

    def hear(said: ConsoleMessage) -> None:
        of_somebody_unknown = "/v1/users/" in said.location["url"]  # there is nothing of them to be read
        if said.type in ("error", "warning") and not of_somebody_unknown:
            complaints.append(said.text)

    def answer(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", hear)
    page.on("dialog", answer)
    try:
        page.goto(str(url))
        yield page
        assert not complaints, complaints
    finally:
        context.close()


def news(page: Page, words: str) -> None:
    """Waits until the page says so, a regular expression."""
    expect(page.get_by_role("status").first).to_contain_text(re.compile(words), timeout=PATIENCE_MS)

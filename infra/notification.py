"""Telling somebody what became of a training or a release: a command or a webhook of the installation's.

Both get one JSON object: `event` (promotion, refusal, failure, rollback), `release`, `words`, `home`. Nothing that goes
wrong with them is more than a warning.
"""

import contextlib
import json
import logging
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from feature_store.contracts.addresses import without_passwords
from feature_store.contracts.errors import InvalidInput, MatchLoopError, ReleaseRefused

_log = logging.getLogger(__name__)

PROMOTION, REFUSAL, FAILURE, ROLLBACK = "promotion", "refusal", "failure", "rollback"
_SECONDS = 10


class NotifySettings(BaseModel):
    """Whom to tell of promotions, refusals, failures and rollbacks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: str | None = Field(
        default=None, description="Run with one JSON object on standard input, words split as by a shell; empty: none."
    )
    webhook: SecretStr | None = Field(default=None, description="URL that is sent the same by POST; empty: none.")


def notify(settings: NotifySettings, home: str, event: str, words: str, release: str | None = None) -> None:
    """Tells it. Takes at most 10 s for each of the two."""
    said = json.dumps({"event": event, "release": release, "words": words, "home": home}).encode()
    if settings.command is not None:
        try:
            subprocess.run(shlex.split(settings.command), input=said, timeout=_SECONDS, check=True, capture_output=True)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("notify.command failed: %s", error)
    if settings.webhook is not None:
        url = settings.webhook.get_secret_value()
        try:
            request = urllib.request.Request(url, said, {"content-type": "application/json"})  # noqa: S310 - operator's
            with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310 - the same
                pass
        except (OSError, ValueError) as error:
            _log.warning("notify.webhook failed: %s", without_passwords(str(error)))


@contextlib.contextmanager
def telling_of_failures(settings: NotifySettings, home: str) -> Iterator[None]:
    """Tells of what ends the work: a refusal, where data or a release are not good enough, or a failure."""
    try:
        yield
    except Exception as error:
        refused = isinstance(error, InvalidInput | ReleaseRefused)
        words = str(error) if isinstance(error, MatchLoopError) else f"{type(error).__name__}: {error}"
        notify(settings, home, REFUSAL if refused else FAILURE, words)
        raise

"""What a command within the test process leaves behind."""

import logging
import warnings

from tests.command_line import matchloop


def test_logs_and_warnings_go_where_they_went() -> None:
    before = logging.getLogger().handlers[:], logging.getLogger().level, warnings.showwarning
    assert "[serving]" in matchloop("--log-level", "debug", "settings")
    assert (logging.getLogger().handlers, logging.getLogger().level, warnings.showwarning) == before

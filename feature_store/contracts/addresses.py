"""Addresses of servers, as people may see them."""

import re

_PASSWORD = re.compile(r"(://[^/?#:@\s]*:)[^/?#\s]*(?=@)|([?&](?:sentinel_)?password=)[^&#\s]*")


def without_passwords(text: str) -> str:
    """The text with the passwords of the URLs in it hidden."""
    return _PASSWORD.sub(r"\1\2***", text)

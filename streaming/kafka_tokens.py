"""Tokens for clients of Kafka that do not ask an identity provider themselves, as librdkafka does."""

import base64
import threading
import time
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from kafka.errors import SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

_ASK_SECONDS = 10.0
_USED_SHARE = 0.8  # of a token's life, as librdkafka does
_URL = "sasl.oauthbearer.token.endpoint.url"


class _Answer(msgspec.Struct):
    access_token: str
    expires_in: float = 60.0  # seconds


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens by the client credentials grant (RFC 6749, section 4.4), each used for most of its life."""

    def __init__(self, properties: Mapping[str, str]) -> None:
        """properties: resolved, of librdkafka's method oidc."""
        super().__init__()
        client, secret = (properties.get(f"sasl.oauthbearer.client.{name}", "") for name in ("id", "secret"))
        form = {"grant_type": "client_credentials"}
        if scope := properties.get("sasl.oauthbearer.scope"):
            form["scope"] = scope
        basic = base64.b64encode(f"{client}:{secret}".encode()).decode()
        self._url = properties.get(_URL, "")
        self._form, self._headers = urlencode(form).encode(), {"Authorization": f"Basic {basic}"}
        self._lock = threading.Lock()
        self._token, self._until = "", 0.0  # monotonic

    def token(self) -> str:
        """A token that is valid. Raises SaslAuthenticationFailedError if the provider gives none."""
        with self._lock:
            if time.monotonic() >= self._until:
                answer = self._ask()
                self._token, self._until = answer.access_token, time.monotonic() + _USED_SHARE * answer.expires_in
            return self._token

    def _ask(self) -> _Answer:
        try:
            request = urllib.request.Request(self._url, self._form, self._headers)  # noqa: S310 - the operator's own
            with urllib.request.urlopen(request, timeout=_ASK_SECONDS) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read(), type=_Answer)
        except (OSError, ValueError) as error:
            raise SaslAuthenticationFailedError(f"{_URL} = {self._url!r} gives no token: {error}") from None

"""The API key, which stands before every request. Plain ASGI: it costs microseconds."""

import base64
import binascii
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from online_serving.errors import error_answer

OPEN = frozenset({"/healthz", "/readyz"})  # for probes that cannot send a key
# For people: a browser asks its user for the key.
_PAGES = frozenset({"/", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
_FILES = "/pages/"
_AUTHORISATION = b"authorization"
_PAGE = b"x-matchloop-page"


class ApiKey:
    """The key that clients send as `Authorization: Bearer KEY`."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def sent_with(self, scope: Scope) -> bool:
        """Whether the request carries the key."""
        return self._is(_credentials(scope, b"bearer"))

    def sent_by_browser(self, scope: Scope) -> bool:
        """Whether the request carries the key as the password of HTTP Basic authentication, with any user name."""
        try:
            _, _, password = base64.b64decode(_credentials(scope, b"basic"), validate=True).partition(b":")
        except binascii.Error:
            return False
        return self._is(password)

    def _is(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._key)


class KeyRequired:
    """Refuses requests without the key. Pages accept what a browser asks its user for, and so do the routes that they
    call, with a header that marks these calls: a browser sends it with what other sites make it ask for, too, and that
    cannot have the header."""

    def __init__(self, app: ASGIApp, key: ApiKey) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN or self._allowed(scope):
            await self._app(scope, receive, send)
            return
        response = error_answer(401, "unauthorised", "Send `Authorization: Bearer KEY` with the serving.api_key.")
        response.headers["WWW-Authenticate"] = 'Basic realm="MatchLoop"' if _is_page(scope) else "Bearer"
        await response(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        from_browser = _is_page(scope) or any(name == _PAGE for name, _ in scope["headers"])
        return self._key.sent_with(scope) or (from_browser and self._key.sent_by_browser(scope))


def _is_page(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in _PAGES or path.startswith(_FILES)


def _credentials(scope: Scope, scheme: bytes) -> bytes:
    given = next((value for name, value in scope["headers"] if name == _AUTHORISATION), b"")
    found, _, credentials = given.partition(b" ")
    return credentials.strip() if found.lower() == scheme else b""

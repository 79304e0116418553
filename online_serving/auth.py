"""API keys, which stand before every request: who sends it, whether they may, and how often. Plain ASGI: it costs
microseconds."""

import base64
import binascii
import math
import time
from collections.abc import Callable

import limits
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from online_serving import keys
from online_serving.errors import error_answer
from online_serving.keys import Key, Keys

OPEN = frozenset({"/healthz", "/readyz"})  # for probes that cannot send a key
# For people: a browser asks its user for the key.
_PAGES = frozenset({"/", "/playground.json", "/dashboard", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
_FILES = "/pages/"
WEBHOOK = "/v1/webhooks/segment"
_AUTHORISATION = b"authorization"
_PAGE = b"x-matchloop-page"
_READS = frozenset({"GET", "HEAD"})
_KEY = "matchloop.key"  # of the ASGI scope: whose request it is

Audit = Callable[[Key | None, str, str, int], None]  # is told: key, method, path, status
_CHANGES = frozenset({keys.Scope.CATALOGUE, keys.Scope.ADMIN})


def scopes_for(method: str, path: str) -> frozenset[keys.Scope]:
    """The scopes of which a request needs one; `admin` always does."""
    if path.startswith(("/v1/recommendations", "/v1/popular")):
        return frozenset({keys.Scope.RECOMMEND})
    if path.startswith("/v1/items"):
        reads = {keys.Scope.RECOMMEND} if method in _READS else set()
        return frozenset({keys.Scope.CATALOGUE, *reads})
    of_users = path.startswith("/v1/users/")
    if of_users and method == "POST" and path.endswith(":merge"):
        return frozenset({keys.Scope.MERGE})
    if path in ("/v1/feedback", "/v1/events", WEBHOOK) or (of_users and method == "PUT"):
        return frozenset({keys.Scope.FEEDBACK})
    return frozenset({keys.Scope.ADMIN})


def caller(known: Keys, scope: Scope) -> Key | None:
    """Whose key the request carries as `Authorization: Bearer KEY`."""
    return known.of(_credentials(scope, b"bearer"))


def may(scope: Scope, wanted: keys.Scope) -> bool:
    """Whether the request, which KeyRequired let in, has the scope as well; where no keys are required, it has all."""
    key: Key | None = scope.get(_KEY)
    return key is None or key.may(wanted)


def _caller_by_browser(known: Keys, scope: Scope) -> Key | None:
    """Whose key the request carries as the password of HTTP Basic authentication, with any user name."""
    try:
        _, _, password = base64.b64decode(_credentials(scope, b"basic"), validate=True).partition(b":")
    except binascii.Error:
        return None
    return known.of(password)


def _caller_by_write_key(known: Keys, scope: Scope) -> Key | None:
    """Whose key the request carries as the user name of HTTP Basic authentication without a password, as Segment's
    libraries send it. A browser remembers none like it."""
    try:
        name, _, password = base64.b64decode(_credentials(scope, b"basic"), validate=True).partition(b":")
    except binascii.Error:
        return None
    return None if password else known.of(name)


class KeyRequired:
    """Refuses requests without a key that may do what they ask for, or that come too often. Pages accept what a browser
    asks its user for, and so do the routes that they call, with a header that marks these calls: a browser sends it
    with what other sites make it ask for, too, and that cannot have the header."""

    def __init__(self, app: ASGIApp, known: Keys, rate: str | None, audit: Audit) -> None:
        """rate: of keys that have none of their own, as `100/second`; None: no limit. audit: is told of every request
        that would change the catalogue, or what only admins may; where no keys are required, of those from our pages,
        without a key."""
        self._app = app
        self._known = known
        self._rates = Rates(rate)
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        marked = any(name == _PAGE for name, _ in scope["headers"])
        if not self._known.required:
            # Clients may do anything, as often as they like; what people change on a page is worth a note all the same.
            await (self._audited(None, self._app) if marked else self._app)(scope, receive, send)
            return
        page = _is_page(scope)
        key = caller(self._known, scope) or (_caller_by_browser(self._known, scope) if page or marked else None)
        if key is None and scope["path"] == WEBHOOK:
            key = _caller_by_write_key(self._known, scope)
        if key is None:
            response = error_answer(401, "unauthorised", "Send `Authorization: Bearer KEY` with a key of this API.")
            response.headers["WWW-Authenticate"] = 'Basic realm="MatchLoop"' if page else "Bearer"
            await response(scope, receive, send)
            return
        scope[_KEY] = key
        refused = self._refused(key, page, scopes_for(scope["method"], scope["path"]))
        await self._audited(key, refused or self._app)(scope, receive, send)

    def _refused(self, key: Key, page: bool, wanted: frozenset[keys.Scope]) -> ASGIApp | None:
        """The answer to a request of a key that may not send it, or not now."""
        if not (page or any(key.may(one) for one in wanted)):
            names = " or ".join(sorted(wanted))
            words = f"Key {key.id} has the scopes {', '.join(key.scopes)}; this needs {names}."
            return error_answer(403, "forbidden", words)
        seconds = self._rates.wait(key)
        if seconds is None:
            return None
        words = f"Key {key.id} has sent more than {self._rates.of(key)}. Try again in {seconds} s."
        response = error_answer(429, "too_many_requests", words)
        response.headers["Retry-After"] = str(seconds)
        return response

    def _audited(self, key: Key | None, app: ASGIApp) -> ASGIApp:
        """The same application; the audit log is told of requests that would change something."""

        async def audited(scope: Scope, receive: Receive, send: Send) -> None:
            method, path = scope["method"], scope["path"]
            if method in _READS or not scopes_for(method, path) <= _CHANGES:
                await app(scope, receive, send)
                return
            status = 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                self._audit(key, method, path, status)

        return audited


class Rates:
    """How often each key may ask this process."""

    def __init__(self, rate: str | None) -> None:
        """rate: of keys that have none of their own."""
        self._rate = rate
        self._parsed: dict[str, limits.RateLimitItem] = {}
        self._windows = limits.strategies.SlidingWindowCounterRateLimiter(limits.storage.MemoryStorage())

    def of(self, key: Key) -> str | None:
        """The key's limit, None if it has none."""
        return key.rate or self._rate

    def wait(self, key: Key) -> int | None:
        """Counts a request of the key; the seconds to wait if it is one too many."""
        rate = self.of(key)
        if rate is None:
            return None
        limit = self._parsed.get(rate) or self._parsed.setdefault(rate, limits.parse(rate))
        if self._windows.hit(limit, key.id):
            return None
        return max(1, math.ceil(self._windows.get_window_stats(limit, key.id).reset_time - time.time()))


def _is_page(scope: Scope) -> bool:
    path: str = scope["path"]
    return path in _PAGES or path.startswith(_FILES)


def _credentials(scope: Scope, scheme: bytes) -> bytes:
    given = next((value for name, value in scope["headers"] if name == _AUTHORISATION), b"")
    found, _, credentials = given.partition(b" ")
    return credentials.strip() if found.lower() == scheme else b""

"""What is known of users, as clients say: first into the log, then into Redis. Erasures and the like are events."""

import asyncio

from feature_store.contracts.catalogue import UserProfile
from feature_store.contracts.clock import Clock
from feature_store.contracts.errors import Unavailable
from feature_store.contracts.events import Erasure, Merge, Profile
from feature_store.contracts.identity import Keyring
from feature_store.online.store import AsyncOnlineStore
from feature_store.user_features import Held
from online_serving.catalogue import redis_answers
from online_serving.errors import NotFound
from online_serving.event_log import EventLog
from online_serving.last_seen import LastSeen
from online_serving.schemas import UserBody
from online_serving.settings import ServingSettings


class Users:
    """Every method raises Unavailable if Redis or the log does not answer. What the log has is done also if Redis did
    not answer: the updater does it when it comes to it."""

    def __init__(
        self,
        online: AsyncOnlineStore,
        log: EventLog,
        keyring: Keyring,
        settings: ServingSettings,
        clock: Clock,
        last_seen: LastSeen,
    ) -> None:
        self._online = online
        self._log = log
        self._keyring = keyring
        self._deadline = settings.feedback_deadline_ms / 1000
        self._clock = clock
        self._last_seen = last_seen

    async def get(self, user_id: str) -> Held:
        """What is stored of a user. Raises NotFound."""
        with redis_answers():
            held = await self._online.users.held(self._keyring.user_key(user_id))
        if held is None:
            raise NotFound(f"Nothing is stored of a user {user_id!r}.")
        return held

    async def page(self, cursor: int, count: int) -> tuple[list[tuple[str, Held]], int]:
        """What is stored of some users, by key, and the cursor behind them, 0: there are no more."""
        with redis_answers():
            behind, found = await self._online.users.page(cursor, count)
        return found, behind

    async def describe(self, user_id: str, body: UserBody) -> None:
        """Replaces a user's profile."""
        user, now, profile = self._keyring.user_key(user_id), self._clock.now_ms(), dict(body.attributes)
        await self._append(Profile(user=user, time=now, attributes=profile))
        with redis_answers():
            await self._online.users.put_profile(user, UserProfile(attributes=profile).tokens(), now)

    async def erase(self, user_id: str) -> None:
        """Forgets a user's profile, history and shown items, and has the log say so to all that read it."""
        user, now = self._keyring.user_key(user_id), self._clock.now_ms()
        await self._append(Erasure(user=user, time=now))
        self._last_seen.forget(user)
        with redis_answers():
            await self._online.users.erase(user, now)

    async def merge(self, user_id: str, visitor_id: str) -> None:
        """Has a visitor's history and shown items go over to the user who they turned out to be, and the log say so.
        Nothing, if they are called the same."""
        if visitor_id == user_id:
            return
        user, visitor = self._keyring.user_key(user_id), self._keyring.user_key(visitor_id)
        merge = Merge(user=visitor, account=user, time=self._clock.now_ms())
        await self._append(merge)
        self._last_seen.forget(visitor)
        self._last_seen.forget(user)
        with redis_answers():
            await self._online.users.merge(merge)

    async def _append(self, event: Profile | Erasure | Merge) -> None:
        sent = self._log.append(event.user, [event])
        done, _ = await asyncio.wait([sent], timeout=self._deadline)
        if not done or sent.exception():
            raise Unavailable("The log did not acknowledge the change of the user in time. Send it again.")

"""The simulator against a small API on a real socket, whose answers are known."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from feature_store.contracts.catalogue import Item
from feature_store.contracts.clock import ManualClock
from feature_store.contracts.errors import InvalidInput, Unavailable
from offline_training.progress import silent
from offline_training.simulation import simulator
from offline_training.simulation.result import SimulationResult, SimulationSettings
from offline_training.simulation.simulator import Simulator
from offline_training.simulation.world import World

Handler = Callable[[web.Request], Awaitable[web.Response]]


class CatalogueOrderApi:
    """Recommends items nobody showed the user yet, in catalogue order; learns one log offset per feedback batch."""

    def __init__(self, items: list[str], offsets: bool = True, lag: int = 0) -> None:
        self.items, self.with_offsets, self.lag = list(items), offsets, lag
        self.seen: dict[str, set[str]] = {}
        self.decisions: dict[str, tuple[str, list[str]]] = {}
        self.feedback: list[dict[str, object]] = []
        self.offset = 0
        self.busy = 0  # answer 503 to that many feedback requests
        self.in_flight: set[str] = set()
        self.overlapping: list[str] = []

    async def recommend(self, request: web.Request) -> web.Response:
        body = await request.json()
        user = body["user_id"]
        if user in self.in_flight:
            self.overlapping.append(user)
        self.in_flight.add(user)
        await asyncio.sleep(0)
        seen = self.seen.setdefault(user, set())
        items = [item for item in self.items if item not in seen][: body["slate_size"]]
        seen.update(items)
        self.in_flight.discard(user)
        decision = f"d{len(self.decisions)}"
        self.decisions[decision] = (user, items)
        answer: dict[str, object] = {
            "decision_id": decision,
            "variant": "online",
            "items": [{"id": i, "position": p, "source": "all", "probability": 1.0} for p, i in enumerate(items)],
        }
        if self.with_offsets:
            answer["parameter_offsets"] = [max(self.offset - self.lag, 0)]
        return web.json_response(answer)

    async def take_feedback(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        if self.busy:
            self.busy -= 1
            return web.json_response({"detail": "the log is busy"}, status=503)
        self.feedback += events
        place = {"partition": 0, "offset": self.offset} if self.with_offsets else {}
        self.offset += 1
        statuses = [{"event_id": e["event_id"], "status": "accepted", **place} for e in events]
        return web.json_response({"events": statuses}, status=202)

    async def parameters(self, request: web.Request) -> web.Response:
        if not self.with_offsets:
            raise web.HTTPNotFound
        return web.json_response({"offsets": [self.offset], "release": "r", "namespace": "n"})

    async def put_item(self, request: web.Request) -> web.Response:
        self.items.insert(0, request.match_info["id"])
        body = await request.json()
        return web.json_response({"id": request.match_info["id"], **body}, status=201)

    async def get_item(self, request: web.Request) -> web.Response:
        item = request.match_info["id"]
        return web.json_response({"id": item, "servable": item in self.items})


@asynccontextmanager
async def serve(api: CatalogueOrderApi) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/recommendations", api.recommend)
    app.router.add_post("/v1/feedback", api.take_feedback)
    app.router.add_get("/v1/parameters", api.parameters)
    app.router.add_put("/v1/items/{id}", api.put_item)
    app.router.add_get("/v1/items/{id}", api.get_item)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def simulate(
    api: CatalogueOrderApi, world: World, visits: int, arrivals: tuple[str, ...] = (), slate_size: int = 2
) -> SimulationResult:
    async def run() -> SimulationResult:
        async with serve(api) as url:
            settings = SimulationSettings(url=url, visits=visits, slate_size=slate_size, concurrency=4)
            items = [Item(id=item, title=f"Title of {item}") for item in arrivals]
            return await Simulator(world, items, settings, ManualClock(5_000)).run_async(silent)

    return asyncio.run(run())


def test_every_taste_is_served_and_reported_once() -> None:
    items = [f"i{n}" for n in range(10)]
    world = World({f"u{n}": frozenset(items[n : n + 3]) for n in range(6)})
    api = CatalogueOrderApi(items)
    result = simulate(api, world, visits=1_000)
    assert result.errors == {}
    assert sum(sum(visit.rewards) for visit in result.visits) == result.rewards_possible == 18
    assert (result.users, result.users_satisfied, result.users_unserved) == (6, 6, 0)
    # User n needs items up to n + 2, two a visit: (n + 3) / 2 visits, rounded up: 2 + 2 + 3 + 3 + 4 + 4.
    assert len(result.visits) == 18
    assert not api.overlapping
    likes = [event for event in api.feedback if event["type"] == "like"]
    views = [event for event in api.feedback if event["type"] == "view"]
    assert (len(likes), len(views)) == (18, 36)
    assert len({(event["decision_id"], event["event_id"]) for event in api.feedback}) == 54
    assert {event["time"] for event in api.feedback} == {5_000}
    for event in likes:
        user, shown = api.decisions[str(event["decision_id"])]
        assert event["item_id"] in shown
        assert event["item_id"] in world.likes[user]


def test_twins_come_as_often_as_each_other() -> None:
    items = [f"i{n}" for n in range(12)]
    world = World({f"u{n}": frozenset(items[n : n + 2]) for n in range(8)})
    world = world.with_twins({user: [f"{user}~{n}" for n in range(3)] for user in world.likes})
    api = CatalogueOrderApi(items)
    api.seen["u4~1"] = set(items[:4])  # this twin is done after one visit, the others of its kind after three
    result = simulate(api, world, visits=1_000)
    assert (result.users, result.users_satisfied, result.rewards_possible) == (24, 24, 48)
    visits = Counter(visit.user for visit in result.visits)
    assert {visits[f"u4~{n}"] for n in range(3)} == {3}
    assert all(len({visits[f"{user}~{n}"] for n in range(3)}) == 1 for user in world.likes)


def test_a_run_that_ends_leaves_hardly_anybody_behind_their_twins() -> None:
    items = [f"i{n}" for n in range(200)]
    world = World({f"u{n}": frozenset(items) for n in range(20)})
    world = world.with_twins({user: [f"{user}~{n}" for n in range(3)] for user in world.likes})
    visits = Counter(visit.user for visit in simulate(CatalogueOrderApi(items), world, visits=100).visits)
    assert sum(visits.values()) == 100
    uneven = [user for user in world.likes if len({visits[f"{user}~{n}"] for n in range(3)}) > 1]
    assert len(uneven) <= 4  # as many as can be on their way at a time


def test_freshness_is_measured() -> None:
    items = [f"i{n}" for n in range(40)]
    result = simulate(CatalogueOrderApi(items), World({"a": frozenset(items), "b": frozenset(items)}), visits=30)
    assert len(result.feedback_to_answer.samples_ms) + result.feedback_to_answer.open == 30
    assert result.feedback_to_parameters.samples_ms
    assert result.feedback_to_parameters.unmeasured is None
    assert min(result.feedback_to_parameters.samples_ms) >= 0


def test_feedback_that_no_answer_covers_stays_open() -> None:
    items = [f"i{n}" for n in range(40)]
    api = CatalogueOrderApi(items, lag=3)
    result = simulate(api, World({"a": frozenset(items)}), visits=10)
    # The last answer is made at offset 9 and covers offsets below 9 - 3.
    assert (len(result.feedback_to_answer.samples_ms), result.feedback_to_answer.open) == (6, 4)


def test_what_the_api_does_not_tell_is_called_unmeasured() -> None:
    result = simulate(CatalogueOrderApi(["a", "b"], offsets=False), World({"u": frozenset("ab")}), visits=5)
    assert "no partition and offset" in (result.feedback_to_parameters.unmeasured or "")
    assert result.feedback_to_answer.unmeasured
    assert result.errors == {}


def test_new_items_enter_and_are_timed() -> None:
    items = [f"i{n}" for n in range(60)]
    api = CatalogueOrderApi(items)
    likes = frozenset([*items, "new/one", "neu ä"])
    result = simulate(api, World({f"u{n}": likes for n in range(8)}), visits=80, arrivals=("new/one", "neu ä"))
    assert result.errors == {}
    assert (result.items_entered, result.items_never_shown, result.items_shown_too_early) == (2, [], [])
    assert len(result.item_to_impression.samples_ms) == 2
    assert result.item_to_servable.samples_ms
    first = {item: n for n, visit in reversed(list(enumerate(result.visits))) for item in visit.items}
    assert first["new/one"] >= 80 * 0.3 - 4  # four visits are under way at a time
    assert first["neu ä"] >= 80 * 0.6 - 4


def test_a_busy_log_is_tried_again_and_counted() -> None:
    api = CatalogueOrderApi(["a", "b"])
    api.busy = 2
    result = simulate(api, World({"u": frozenset("ab")}), visits=5)
    assert result.errors == {"POST /v1/feedback: 503": 2}
    assert json.loads(result.error_examples["POST /v1/feedback: 503"]) == {"detail": "the log is busy"}
    assert [visit.feedback_accepted for visit in result.visits] == [True]
    assert len(api.feedback) == 4


def test_an_absent_api_ends_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "_FAILURES_IN_A_ROW", 3)
    settings = SimulationSettings(url="http://127.0.0.1:9", visits=100, concurrency=1)
    with pytest.raises(Unavailable, match=r"POST /v1/recommendations: Client.*matchloop status"):
        Simulator(World({"u": frozenset("a")}), [], settings, ManualClock()).run(silent)


def test_users_whom_nobody_can_serve_leave() -> None:
    result = simulate(CatalogueOrderApi(["a"]), World({"u": frozenset(["never offered"])}), visits=50)
    assert (len(result.visits), result.users_satisfied, result.users_unserved) == (2, 0, 1)


def test_visits_come_as_fast_as_the_rate_allows_and_wait_while_it_is_0() -> None:
    looked: list[int] = []
    made: list[int] = []

    async def run() -> SimulationResult:
        api = CatalogueOrderApi([f"i{n}" for n in range(1000)])

        def rate(begun: int) -> float | None:
            looked.append(begun)
            if begun == 12 and looked.count(12) <= 3:
                made.append(len(api.decisions))
                return 0.0
            return None

        async with serve(api) as url:
            world = World({f"u{n}": frozenset(["never offered"]) for n in range(50)})
            settings = SimulationSettings(url=url, visits=30)
            return await Simulator(world, [], settings, ManualClock(), rate).run_async(silent)

    assert len(asyncio.run(run()).visits) == 30
    assert sorted(set(looked)) == list(range(30))
    assert looked == sorted(looked)
    assert made[-1] <= 12


def test_a_pace_is_kept() -> None:
    async def run() -> SimulationResult:
        async with serve(CatalogueOrderApi([f"i{n}" for n in range(1000)])) as url:
            world = World({f"u{n}": frozenset(["never offered"]) for n in range(50)})
            settings = SimulationSettings(url=url, visits=20, visits_per_second=100.0)
            return await Simulator(world, [], settings, ManualClock()).run_async(silent)

    visits = sorted(asyncio.run(run()).visits, key=lambda visit: visit.started)
    assert len(visits) == 20
    assert all(visit.started >= (n + 1) / 100 - 1e-3 for n, visit in enumerate(visits))


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInput, match="0 visits"):
        SimulationSettings(url="http://127.0.0.1:1", visits=0)

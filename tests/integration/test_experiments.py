"""Experiments on real servers: an API process follows them while it serves, and what it logs tells who met what."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.events import Decision, decode
from feature_store.contracts.experiments import Plan, Status, Variant, variant_in
from feature_store.contracts.identity import Keyring
from feature_store.home import Home
from feature_store.namespace import Namespace
from infra.benchmarks.small_release import items
from offline_training.experiment.lifecycle import Base, create, ramp, start, stop
from offline_training.promotion.garbage import collect
from offline_training.promotion.promote import swap
from offline_training.promotion.releases import Site
from offline_training.promotion.removal import remove
from streaming.kafka import Reader
from tests.api_server import SECRET, Installation, running, wait_until
from tests.tiny_job import Notes

CATALOGUE = items(40)
KEYRING = Keyring(SECRET)
USERS = [f"user {n}" for n in range(60)]
Running = tuple[Site, Base, httpx.Client, Installation]


@pytest.fixture
def served(broker: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Running]:
    name = "".join(filter(str.isalnum, request.node.name))[-40:]
    with Installation(broker, redis_url, tmp_path, name) as made:
        made.online.catalogue.add(CATALOGUE)
        made.online.deployment.activate(made.release(CATALOGUE))
        config = made.config(repeat_days=0)
        with running(config) as api:
            site = Site(Home(made.home), made.online, made.bandit, Notes())
            yield site, Base(config.serving, config.bandit), api, made


def plan(name: str, change: dict[str, Any], **fields: Any) -> Plan:
    return Plan(name=name, variants=(Variant(name="now"), Variant(name="new", **change)), **fields)


def ask(api: httpx.Client, user: str) -> dict[str, Any]:
    answer: dict[str, Any] = api.post("/v1/recommendations", json={"user_id": user}).raise_for_status().json()
    return answer


def labels(api: httpx.Client) -> dict[str, str]:
    return {user: ask(api, user)["variant"] for user in USERS}


def test_an_experiment_reaches_a_serving_process_grows_and_ends(served: Running) -> None:
    site, base, api, made = served
    assert set(labels(api).values()) == {"default"}
    create(site, plan("shorter", {"serving": {"slate_size": 2}}, testers={"me": "new"}), base, KEYRING, 1)
    start(site, "shorter", 0.0, base, 2)
    wait_until(lambda: ask(api, "me")["variant"] == "shorter=new!", 10)
    assert len(ask(api, "me")["items"]) == 2
    assert set(labels(api).values()) == {"default"}

    half = ramp(site, "shorter", 0.5, base, 3)
    due = {user: found.name for user in USERS if (found := half.assign(KEYRING.user_key(user))) is not None}
    assert 15 < len(due) < 45
    wait_until(lambda: ask(api, next(iter(due)))["variant"] != "default", 10)
    met = {user: variant_in(said, "shorter") for user, said in labels(api).items() if said != "default"}
    assert met == due

    ramp(site, "shorter", 1.0, base, 4)
    wait_until(lambda: "default" not in labels(api).values(), 10)
    assert {user: label for user, label in labels(api).items() if user in due} == {
        user: f"shorter={variant}" for user, variant in due.items()
    }
    for user in USERS[:10]:
        answer = ask(api, user)
        assert len(answer["items"]) == (2 if answer["variant"] == "shorter=new" else 5)

    stop(site, "shorter", 5)
    wait_until(lambda: set(labels(api).values()) == {"default"}, 10)
    with contextlib.closing(Reader(made.broker, made.kafka.topics.events, {0: 0, 1: 0})) as reader:
        events = [event for record in reader.backlog() for event in decode(record.value)]
    logged = {event.variant for event in events if isinstance(event, Decision)}
    assert logged == {"default", "shorter=now", "shorter=new", "shorter=new!"}


def test_variants_answer_with_releases_of_their_own(served: Running) -> None:
    site, base, api, made = served
    other = made.release(CATALOGUE[:30], clusters=3)
    active = made.online.deployment.active()
    assert active is not None
    assert other.release != active.release
    create(site, plan("releases", {"release": other.release[:10]}), base, KEYRING, 1)
    started = start(site, "releases", 1.0, base, 2)
    assert started.namespaces == {other.release: other.namespace}
    wait_until(lambda: "default" not in labels(api).values(), 60)
    released = {(answer["variant"], answer["release"]) for user in USERS if (answer := ask(api, user))}
    assert released == {("releases=now", active.release), ("releases=new", other.release)}
    assert set(made.online.deployment.namespaces()) == {active.namespace, other.namespace}

    # Neither a removal, nor cleaning up, nor a promotion takes away what users are answered with.
    with pytest.raises(InvalidInput, match="experiment releases answers with it"):
        remove(site, other.release)
    collect(site, 1, 0.0, 10**13)
    assert (site.home.releases / other.release).is_dir()
    stop(site, "releases", 3)
    wait_until(lambda: set(labels(api).values()) == {"default"}, 10)
    remove(site, other.release)


def test_a_release_that_is_gone_is_refused_and_runs_nowhere(served: Running) -> None:
    site, base, api, made = served
    other = made.release(CATALOGUE[:30], clusters=3)
    with pytest.raises(InvalidInput, match="There is no release 'nowhere'"):
        create(site, plan("lost", {"release": "nowhere"}), base, KEYRING, 1)
    create(site, plan("lost", {"release": other.release}), base, KEYRING, 1)
    remove(site, other.release)
    with pytest.raises(InvalidInput, match="There is no release"):
        start(site, "lost", 1.0, base, 2)
    # Started all the same by somebody else: nobody is in, and nobody's request fails.
    made.online.experiments.change(
        "lost",
        lambda known: known["lost"].model_copy(
            update={"status": Status.RUNNING, "buckets": frozenset(range(1000)), "namespaces": dict([other])}
        ),
    )
    create(site, plan("fine", {"serving": {"slate_size": 2}}, layer="another"), base, KEYRING, 1)
    start(site, "fine", 1.0, base, 2)
    wait_until(lambda: set(labels(api).values()) == {"fine=now", "fine=new"}, 10)


def test_what_does_not_go_together_is_refused(served: Running) -> None:
    site, base, _, _ = served
    change = {"bandit": {"alpha": 2.0}}
    for name, layer in (("first", "default"), ("second", "default"), ("third", "other")):
        create(site, plan(name, change, layer=layer), base, KEYRING, 1)
    with pytest.raises(InvalidInput, match="an experiment 'first' already"):
        create(site, plan("first", {}), base, KEYRING, 1)
    with pytest.raises(InvalidInput, match="There is no metric 'joy'"):
        create(site, plan("joyful", {}, metric="joy"), base, KEYRING, 1)
    with pytest.raises(InvalidInput, match=r"There is no experiment 'fifth'. There are first, second, third"):
        start(site, "fifth", 1.0, base, 1)
    with pytest.raises(InvalidInput, match="'first' is draft, and only a running one grows"):
        ramp(site, "first", 1.0, base, 1)
    start(site, "first", 0.7, base, 1)
    with pytest.raises(InvalidInput, match=r"of which first have 70\.0%"):
        start(site, "second", 0.5, base, 1)
    with pytest.raises(InvalidInput, match=r"both change bandit\.alpha, on layers"):
        start(site, "third", 0.5, base, 1)
    with pytest.raises(InvalidInput, match=r"is running\. A running one grows"):
        start(site, "first", 0.8, base, 1)
    stop(site, "first", 2)
    with pytest.raises(InvalidInput, match="was stopped already"):
        stop(site, "first", 2)
    with pytest.raises(InvalidInput, match="a stopped one does not start again"):
        start(site, "first", 0.8, base, 3)
    start(site, "second", 1.0, base, 3)


def test_a_promotion_keeps_the_namespaces_of_experiments_folded(served: Running) -> None:
    site, base, _, made = served
    tested, promoted = made.release(CATALOGUE[:30], clusters=3), made.release(CATALOGUE[:25], clusters=3)
    create(site, plan("releases", {"release": tested.release}), base, KEYRING, 1)
    start(site, "releases", 1.0, base, 2)
    for _ in range(2):  # what serves becomes what did, and what did nothing
        swap(Namespace.load(site.home.namespaces, promoted.namespace), site.online, site.state, stale=True)
    assert tested.namespace in made.online.deployment.namespaces()
    with contextlib.suppress(InvalidInput):
        remove(site, tested.release)
    assert (site.home.releases / tested.release).is_dir()

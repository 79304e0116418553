from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.catalogue import MAX_ID_CHARACTERS
from feature_store.contracts.experiments import Plan, Variant
from feature_store.contracts.identity import Keyring
from offline_training.simulation.twins import twin_ids

KEYRING = Keyring(b"a secret of sixteen bytes")
EXPERIMENT = Plan(
    name="uneven",
    variants=(
        Variant(name="off", weight=0.9),
        Variant(name="greedy", weight=0.08),
        Variant(name="explore", weight=0.02),
    ),
)


@given(st.sets(st.text(min_size=1, max_size=MAX_ID_CHARACTERS), min_size=1, max_size=8))
def test_everybody_has_a_twin_in_every_variant_under_an_id_of_its_own(people: set[str]) -> None:
    taken = {f"{person[:200]}~{number}" for person in people for number in range(5)}
    twins = twin_ids(sorted(people), EXPERIMENT, KEYRING, taken)
    assert set(twins) == people
    ids = [twin for own in twins.values() for twin in own]
    assert len(set(ids)) == len(ids) == 3 * len(people)
    assert not set(ids) & (people | taken)
    assert max(map(len, ids)) <= MAX_ID_CHARACTERS
    for own in twins.values():
        assert [EXPERIMENT.variant_of(KEYRING.user_key(twin)).name for twin in own] == ["off", "greedy", "explore"]


def test_ids_are_the_same_again() -> None:
    assert twin_ids(["405"], EXPERIMENT, KEYRING) == twin_ids(["405"], EXPERIMENT, KEYRING)

"""User keys and signed decision ids."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contracts.errors import ForgedDecision, InvalidInput
from feature_store.contracts.identity import DecisionRef, Keyring, Masks, load_or_create_secret, read_decision_id

KEYRING = Keyring(b"0123456789abcdef")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@given(st.text(min_size=1, max_size=50), st.integers(0, 2**47 - 1))
def test_a_decision_id_says_whose_and_when(user_id: str, time: int) -> None:
    user = KEYRING.user_key(user_id)
    decision = KEYRING.decision_id(user, time)
    assert KEYRING.open_decision_id(decision) == DecisionRef(user, time)
    assert read_decision_id(decision) == DecisionRef(user, time)
    assert len(user) == 22


def test_an_id_says_whether_the_log_has_its_decision_and_old_ids_mean_that_it_has() -> None:
    user, nonce = KEYRING.user_key("ada"), b"12345678"
    unlogged = KEYRING.decision_id(user, 1_700_000_000_000, nonce, logged=False)
    assert KEYRING.open_decision_id(unlogged) == DecisionRef(user, 1_700_000_000_000, logged=False)
    assert not KEYRING.open_decision_id(unlogged).is_none
    assert read_decision_id(unlogged) == DecisionRef(user, 1_700_000_000_000, logged=False)
    before = "OXgkoLxoJKbO3iCYQQA5MQGLz-VoADEyMzQ1Njc4bqoUbju7jMC_VA"  # made before ids said so
    assert KEYRING.open_decision_id(before) == DecisionRef(user, 1_700_000_000_000, logged=True)


def test_an_event_that_belongs_to_no_decision_has_one_id_of_its_own() -> None:
    ada, bob = KEYRING.user_key("ada"), KEYRING.user_key("bob")
    order = KEYRING.no_decision_id(ada, "order")
    assert order == KEYRING.no_decision_id(ada, "order")
    assert len({order, KEYRING.no_decision_id(ada, "another"), KEYRING.no_decision_id(bob, "order")}) == 3
    assert KEYRING.open_decision_id(order).is_none
    assert KEYRING.open_decision_id(order).user == ada
    masked = Masks(b"thrown away").decision(order)
    assert read_decision_id(masked) == DecisionRef(Masks(b"thrown away").user(ada), 0, logged=False)


@given(st.integers(0, 53), st.sampled_from(ALPHABET))
def test_changing_any_character_makes_it_forged(position: int, character: str) -> None:
    genuine = KEYRING.decision_id(KEYRING.user_key("ada"), 1_700_000_000_000, b"12345678")
    changed = genuine[:position] + character + genuine[position + 1 :]
    if changed != genuine:
        with pytest.raises(ForgedDecision, match="not made by this installation"):
            KEYRING.open_decision_id(changed)


@pytest.mark.parametrize("forged", ["", "x", "é", "A" * 54, "A" * 10_000, "a\nb", "===="])
def test_anything_else_is_forged(forged: str) -> None:
    with pytest.raises(ForgedDecision):
        KEYRING.open_decision_id(forged)
    assert (read_decision_id(forged) is None) == (len(forged) != 54)


def test_another_installation_makes_other_keys_and_ids() -> None:
    other = Keyring(b"another secret of some length")
    assert other.user_key("ada") != KEYRING.user_key("ada")
    with pytest.raises(ForgedDecision):
        KEYRING.open_decision_id(other.decision_id(other.user_key("ada"), 1))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has 3 bytes, at least 16"):
        Keyring(b"abc")


def test_the_secret_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "home" / "secret"
    first = load_or_create_secret(path)
    assert load_or_create_secret(path) == first
    assert len(first) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["secret"]

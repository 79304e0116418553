"""Twins: every simulated person once in every variant of an experiment, so that the same people compare the variants.

A twin is a user with an id of its own, which the experiment's own assignment puts into its variant once everybody is
in, and begins with what is known of its person. That is its history and nothing else: models learn from what people did
once, not four times.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from feature_store.contracts.columns import INTERACTIONS, USERS
from feature_store.contracts.experiments import Plan
from feature_store.contracts.identity import Keyring
from feature_store.lake_format import read, write
from feature_store.lake_path import LakePath, new_file
from feature_store.online.users import OnlineUsers
from offline_training.data.lake import parquet_files
from offline_training.promotion.publishing import user_records

_STEM = 200  # characters of a person's id in that of a twin, which has to be an id as well


def twin_ids(
    people: Iterable[str], experiment: Plan, keyring: Keyring, taken: Iterable[str] = ()
) -> dict[str, tuple[str, ...]]:
    """The ids of each person's twins, one for each variant, in the variants' order. people, taken: ids of users that
    there are; none is a twin's."""
    used = {*people, *taken}

    def fresh(person: str, variant: str) -> str:
        for number in count():
            twin = f"{person[:_STEM]}~{number}"
            met = experiment.variant_of(keyring.user_key(twin)).name
            if twin not in used and met == variant:
                used.add(twin)
                return twin
        raise AssertionError("there is no end of numbers")

    return {person: tuple(fresh(person, variant.name) for variant in experiment.variants) for person in people}


def share_histories(
    lake: LakePath, sets: Path, users: OnlineUsers, twins: Mapping[str, Sequence[str]], until_ms: int
) -> None:
    """Gives twins what was known of their person before a time (ms since the epoch): in the lake, for later trainings,
    and as it was published from the training sets of a release.

    twins: user keys of twins by that of their person; as many for everybody.
    """
    people = pa.array(twins, pa.string())
    known = ds.field("user").isin(people)
    before = (ds.field("time") < until_ms) & (ds.field("written").is_null() | (ds.field("written") < until_ms))
    for source, target, schema, rows in (
        ("interactions", "histories", INTERACTIONS, known & before),
        ("users", "users", USERS, known),
    ):
        if files := parquet_files(lake / source):
            table = pa.concat_tables(read(file, schema).filter(rows) for file in files)
            with new_file(lake / target / "twins.parquet") as draft:
                write(_renamed(table, people, list(twins.values())), draft)
    users.put(record._replace(user=twin) for record in user_records(sets) for twin in twins.get(record.user, ()))


def _renamed(rows: pa.Table, people: pa.Array, twins: Sequence[Sequence[str]]) -> pa.Table:
    """The rows of people as rows of each of their twins."""
    person = pc.index_in(rows["user"], people)
    copies = [
        rows.set_column(0, rows.schema.field("user"), pa.array(keys, pa.string()).take(person))
        for keys in zip(*twins, strict=True)
    ]
    return pa.concat_tables(copies)

"""The way back from user keys to the ids in an import's files: for simulated visitors, who must call the API as users
do."""

from pathlib import Path

import pyarrow as pa

from feature_store.contracts.identity import Keyring
from offline_training.data import checks
from offline_training.data.sources import INTERACTIONS, Mapping, find_sources


def user_ids(source: Path, mapping: Mapping, keyring: Keyring) -> dict[str, str]:
    """Key -> id of every user in the interactions at `source`, which import_data has read before."""
    found: set[str] = set()
    for file in find_sources(source)[INTERACTIONS]:
        name = file.require("user_id", mapping)
        for batch in file.batches([name], lambda _: None):
            verdict = checks.Verdict(len(batch.table))
            column = checks.ids(batch.table[name].combine_chunks(), name, verdict, from_csv=file.is_csv)
            found.update(column.filter(pa.array(verdict.passed)).unique().to_pylist())
    return {keyring.user_key(user): user for user in found}

"""The graph bench: what it needs."""

from pathlib import Path

import pytest

from benchmarks.graph import run
from feature_store.contracts.errors import InvalidInput
from offline_training.progress import silent


def test_the_graph_bench_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="knows ml-100k, ml-latest-small, ml-1m, not 'netflix'"):
        run(tmp_path, 0, silent, dataset="netflix", out=None)
    with pytest.raises(InvalidInput, match="needs --data: a folder that holds ml-100k"):
        run(tmp_path, 0, silent, dataset="ml-100k", out=None)

"""Sealed releases and what is read back."""

import math
from pathlib import Path

from feature_store.contracts.manifest import Manifest, open_release, seal


def test_a_metric_that_is_not_defined_comes_back_as_not_a_number(tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    manifest = Manifest(
        created=1,
        features="f",
        dimensions=4,
        clusters=1,
        history_length=1,
        active_clusters=1,
        context_temperature=0.1,
        items=1,
        parent=None,
        files={},
        metrics={"auc": math.nan, "recall": 0.5},
    )
    release = seal(tmp_path / "draft", manifest)
    (tmp_path / "draft").rename(tmp_path / release)
    metrics = open_release(tmp_path / release, "f").metrics
    assert math.isnan(metrics.pop("auc"))
    assert metrics == {"recall": 0.5}

"""What the schemas say of answers."""

from online_serving.pipeline.candidates import _NAMES
from online_serving.schemas import RecommendedItem


def test_every_source_of_a_candidate_is_named() -> None:
    described = str(RecommendedItem.model_fields["source"].description)
    assert [name for name in _NAMES.values() if name not in described] == []

"""What the description says of answers."""

from online_serving.answers import RecommendedItem
from online_serving.pipeline.candidates import SOURCE_NAMES


def test_every_source_of_a_candidate_is_named() -> None:
    described = str(RecommendedItem.model_fields["source"].description)
    assert [name for name in SOURCE_NAMES if name not in described] == []

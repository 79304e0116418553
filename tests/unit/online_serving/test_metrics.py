"""What the API measures of itself."""

from online_serving.metrics import STAGE, Stage


def test_a_stage_is_timed() -> None:
    with Stage("a stage of this test"):
        pass
    samples = [sample for metric in STAGE.collect() for sample in metric.samples]
    count, total = (
        next(
            sample.value
            for sample in samples
            if sample.name.endswith(suffix) and sample.labels["stage"] == "a stage of this test"
        )
        for suffix in ("_count", "_sum")
    )
    assert count == 1
    assert total >= 0

from pathlib import Path

import pytest

from feature_store.contracts.errors import InvalidInput
from infra.experiment_file import read_plan


def test_variants_are_tables_and_the_first_is_the_control(tmp_path: Path) -> None:
    file = tmp_path / "wider.toml"
    file.write_text(
        """
        name = "wider"
        guardrails = ["latency_ms"]
        [variants.now]
        [variants.wide]
        weight = 2
        bandit = { alpha = 2.0 }
        serving.category_boosts = { drama = 1.5 }
        """
    )
    plan = read_plan(file)
    assert plan.control == "now"
    assert plan.shares() == pytest.approx({"now": 1 / 3, "wide": 2 / 3})
    assert plan.variants[1].changed() == {"bandit.alpha", "serving.category_boosts"}
    assert plan.guardrails == ("latency_ms",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not valid TOML"),
        ("name = 'a'", "variants: Field required"),
        ("name = 'a'\n[variants.now]", "at least 2 items"),
        ("name = 'a'\n[variants.now]\n[variants.new]\nalpha = 2.0", "variants.1.alpha: Extra inputs"),
        ("name = 'a'\nunit = 'session'\n[variants.now]\n[variants.new]", "unit: Input should be 'user'"),
    ],
)
def test_what_has_no_meaning_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_plan(tmp_path / "plan.toml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_plan(tmp_path / "nothing.toml")

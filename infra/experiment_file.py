"""The TOML file that an experiment is made from."""

import tomllib
from pathlib import Path

from pydantic import ValidationError

from feature_store.contracts.errors import InvalidInput
from feature_store.contracts.experiments import Plan


def read_plan(file: Path) -> Plan:
    """Variants are tables, [variants.NAME], the first of them the control. Raises InvalidInput naming the field and
    the rule."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The file {file} cannot be read: {error.strerror}.") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The file {file} is not valid TOML: {error}.") from None
    variants = content.get("variants")
    if isinstance(variants, dict):
        content["variants"] = [
            {"name": name, **(values if isinstance(values, dict) else {"": values})}
            for name, values in variants.items()
        ]
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"])) or "the experiment"
        raise InvalidInput(f"{file}: {where}: {detail['msg']}.") from None

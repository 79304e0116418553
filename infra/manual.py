"""The reference manual of the settings: a TOML file with every setting, its default and what it means.

It is made from the settings classes. `matchloop settings` prints it; infra/matchloop.toml is what it printed.
"""

import inspect
import json
from enum import Enum
from typing import Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from infra.settings import CONFIG_VARIABLE, DEFAULT_FILE, MLFLOW_VARIABLE, names, variable

_WIDTH = 118
_HEADER = f"""\
# MatchLoop's settings. Every one is here with its default; remove the # before a setting to change it.
#
# Read from ./{DEFAULT_FILE}, or from the file that --config or {CONFIG_VARIABLE} names. The environment wins over it:
# {variable("kafka", "bootstrap")}=host:9092 sets bootstrap in [kafka]; lists and tables are written as JSON there,
# and {MLFLOW_VARIABLE} is read too. An empty text counts as not set. A secret may come from a file:
# {variable("", "secret")}_FILE=/run/secrets/matchloop is {variable("", "secret")} with what that file holds.
# This file is printed by `matchloop settings`.
"""
_LIMITS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


def render() -> str:
    """The commented settings file."""
    lines = [_HEADER]
    current = ""
    for section, name, declared in names():
        if section != current:
            current = section
            lines += ["", f"[{section}]", *_comment(inspect.getdoc(declared) or ""), ""]
        field = declared.model_fields[name]
        lines += [*_comment(_described(field)), f"# {name} = {toml(field.get_default(call_default_factory=True))}", ""]
    return "\n".join(lines).rstrip() + "\n"


def toml(value: Any) -> str:
    """A value as TOML writes it; None, which TOML does not know, as the empty text."""
    if value is None:
        return '""'
    if isinstance(value, BaseModel):
        return toml(dict(value))
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(part) for part in value) + "]"
    return json.dumps(to_jsonable_python(value.value if isinstance(value, Enum) else value))


def _described(field: FieldInfo) -> str:
    limits = []
    for rule in field.metadata:
        for kind, (attribute, words) in _LIMITS.items():
            if isinstance(rule, kind):
                limits.append(f"{words} {getattr(rule, attribute)}")
        if isinstance(rule, MinLen):
            limits.append(f"at least {rule.min_length}")
    allowed = f" ({', '.join(limits)})" if limits else ""
    return f"{(field.description or '').rstrip('.')}{allowed}."


def _comment(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > _WIDTH - 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [f"# {line}" for line in lines]

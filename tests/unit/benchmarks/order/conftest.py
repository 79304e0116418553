"""The small world of bench pay."""

from tests.unit.benchmarks.pay.conftest import prepared, world

__all__ = ["prepared", "world"]

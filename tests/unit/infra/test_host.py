"""Names of a host in a home directory that several share."""

import re

from infra.host import host_name, run_name


def test_a_host_has_the_name_that_was_given_or_the_systems() -> None:
    assert host_name("pod-1") == "pod-1"
    assert re.fullmatch(r"[A-Za-z0-9._-]+", host_name(None))


def test_a_run_belongs_to_a_host_and_a_boot() -> None:
    assert run_name("a") == run_name("a")
    assert run_name("a") != run_name("b")
    assert re.fullmatch(r"a-[0-9a-f]{8}", run_name("a"))

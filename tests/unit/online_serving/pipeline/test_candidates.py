"""Sources of candidates: what the log holds of them."""

from online_serving.pipeline.candidates import NAMED, SOURCES, source_name


def test_names_and_bits_are_those_that_logs_hold() -> None:
    bits = {source.name: source.bit for source in SOURCES} | {"named": NAMED}
    assert bits == {"index": 1, "cluster": 2, "fresh": 4, "named": 8, "lists": 16}


def test_a_set_of_sources_is_called_by_their_names_in_order_of_bits() -> None:
    assert source_name(0b11111) == "index+cluster+fresh+named+lists"
    assert source_name(0b10001) == "index+lists"
    assert source_name(0b01000) == "named"

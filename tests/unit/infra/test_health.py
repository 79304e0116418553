"""What a log says about a program that does not work."""

from pathlib import Path

from infra.health import last_words


def test_the_last_words_are_the_errors_since_the_start(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("2026-01-31T12:00:00.123Z ERROR old: from another time\n")
    begun = log.stat().st_size
    with log.open("a") as file:
        file.write("2026-01-31T12:00:01.123Z INFO uvicorn: Started\n")
        file.write("2026-01-31T12:00:02.123Z ERROR followers: items.parquet is missing " + "x" * 1000 + "\n")
        file.write("2026-01-31T12:00:03.123Z INFO uvicorn: Shutting down\n" * 5)
        file.write("matchloop: The secret has 3 bytes.\n")
    missing, short = last_words(log, begun).strip("\n").splitlines()
    assert "items.parquet is missing" in missing
    assert len(missing) < 500
    assert short.strip() == "matchloop: The secret has 3 bytes."


def test_without_errors_they_are_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "redis.log"
    log.write_text("".join(f"line {n}\n" for n in range(9)))
    assert last_words(log, 0).split("\n    ")[1:] == ["line 6", "line 7", "line 8\n"]
    assert last_words(tmp_path / "none.log", 0) == ""

"""The runs of a home directory: which one goes on, which ones are kept, and whose users were published."""

import secrets
import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from feature_store.contracts.errors import InvalidInput
from feature_store.definitions import DAY_MS
from feature_store.durable import whole_folder, write_file
from offline_training.runs.run import PROMOTED, Inputs, Manifest, Run, read

SETS, RELEASE, NAMESPACE = "training_sets", "release", "namespace"  # what steps are called
KEPT = 2  # runs that ended well
_PUBLISHED = "published.json"  # in the folder of runs


class Published(msgspec.Struct, frozen=True):
    """Whose users were published last."""

    run: str
    release: str
    created: int  # as of when, ms since the epoch


def all_runs(runs: Path) -> list[Run]:
    """Oldest first."""
    found = [Run(path.parent) for path in runs.glob("*/run.json") if not path.parent.name.endswith(".part")]
    return sorted(found, key=lambda run: (run.manifest.created, run.manifest.id))


def begin(runs: Path, inputs: Inputs, now_ms: int) -> Path:
    """The folder of a new run."""
    stamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
    manifest = Manifest(f"{stamp}-{secrets.token_hex(3)}", now_ms, inputs)
    with whole_folder(runs / manifest.id) as folder:
        (folder / "steps").mkdir()
        (folder / "run.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return runs / manifest.id


def interrupted(runs: Path, inputs: Inputs, now_ms: int) -> Path | None:
    """The folder of the newest run, if it was interrupted within a day and its inputs are these. What it read of the
    lake is of when it began: older than that it is not worth going on with."""
    newest = next(reversed(all_runs(runs)), None)
    if newest is None or newest.ended is not None or now_ms - newest.manifest.created >= DAY_MS:
        return None
    theirs = newest.manifest.inputs
    if newest.outputs().get(NAMESPACE, {}).get("id") == inputs.parent_namespace:  # its own serves: it was nearly done
        served = {"parent_release": theirs.parent_release, "parent_namespace": theirs.parent_namespace}
        inputs = msgspec.structs.replace(inputs, **served)
    return newest.folder if theirs == inputs else None


def discard_interrupted(runs: Path) -> None:
    """Removes what interrupted runs have read: they begin anew. Nothing of a home may be training."""
    for run in all_runs(runs):
        if run.ended is None:
            shutil.rmtree(run.folder)


def superseded(runs: Path, releases: Collection[str] = ()) -> list[Run]:
    """All but the newest run, the newest two that ended well, the one whose users were published last, and the newest
    with training sets of each of the releases."""
    everything = all_runs(runs)
    well = [run for run in everything if (end := run.ended) is not None and end.outcome == PROMOTED]
    kept = {run.folder for run in [*everything[-1:], *well[-KEPT:]]}
    kept.update(run.folder for release in releases if (run := run_of_release(runs, release)) is not None)
    if (last := published(runs)) is not None:
        kept.add(runs / last.run)
    return [run for run in everything if run.folder not in kept]


def run_of_release(runs: Path, release: str) -> Run | None:
    """The newest run that made a release, if its training sets are still there."""
    for run in reversed(all_runs(runs)):
        if run.outputs().get(RELEASE, {}).get("id") == release and (run.folder / SETS).is_dir():
            return run
    return None


def all_sets(runs: Path) -> Iterator[Path]:
    """The training sets of all runs."""
    yield from sorted(runs.glob(f"*/{SETS}"))


def note_published(runs: Path, run: Run, release: str) -> None:
    """The users of the run have been published, with the release that it made."""
    noted = Published(run.manifest.id, release, run.manifest.created)
    write_file(runs / _PUBLISHED, msgspec.json.format(msgspec.json.encode(noted)))


def published(runs: Path) -> Published | None:
    """What was published last, None if nothing was. Raises InvalidInput if its note is damaged."""
    try:
        return read(runs / _PUBLISHED, Published)
    except FileNotFoundError:
        return None


def published_sets(runs: Path) -> tuple[Path, str]:
    """The training sets whose users were published last, and the release with which they were. Raises InvalidInput if
    there are none."""
    last = published(runs)
    if last is None or not (runs / last.run / SETS).is_dir():
        raise InvalidInput(
            f"No users were published from the runs in {runs}: there is none, or none passed the gate. Run "
            "`matchloop train` or `matchloop retrain`."
        )
    return runs / last.run / SETS, last.release

"""What serves, what is folded and which experiments there are, in the home as well: Redis may come back without it.

The sink writes it whenever Redis says something newer (streaming/deployment_keeper.py); `matchloop recover` gives it
back. Every change counts a version up, so that a Redis that was set back is not taken for one that knows more.
"""

from pathlib import Path

import msgspec

from feature_store.contracts.errors import UNREADABLE, Unavailable
from feature_store.durable import write_file


class DeploymentNote(msgspec.Struct, frozen=True):
    """What Redis held."""

    version: int
    active: dict[str, str]  # release, namespace; previous_...: what served before
    namespaces: list[str]  # being folded
    shadow: dict[str, str] = {}
    experiments: dict[str, str] = {}  # name -> JSON
    experiments_version: int = 0


def note_file(home: Path, prefix: str) -> Path:
    """Where it is, for the installation with the prefix of keys."""
    return home / "deployment" / f"{prefix}.json"


def read_note(home: Path, prefix: str) -> DeploymentNote | None:
    """None if nothing ever served. Raises Unavailable if it cannot be read."""
    path = note_file(home, prefix)
    try:
        return msgspec.json.decode(path.read_bytes(), type=DeploymentNote)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise Unavailable(f"{path} cannot be read ({error}). Remove it: the sink writes it anew.") from None


def check_current(home: Path, prefix: str, found: DeploymentNote) -> None:
    """Raises Unavailable if Redis, which holds what was found, has gone back behind what was noted."""
    noted = read_note(home, prefix)
    if noted is not None and found.version < noted.version:
        raise Unavailable(
            f"Redis (redis.prefix {prefix!r}) is empty or older than this installation: it does not know that release "
            f"{noted.active.get('release')} serves, or what was changed since. Run `matchloop recover`. To begin anew, "
            f"remove {note_file(home, prefix)}."
        )


def note(home: Path, prefix: str, found: DeploymentNote) -> None:
    """Writes what was found, unless it is there already or nothing serves. Raises Unavailable as check_current does."""
    check_current(home, prefix, found)
    if found.active and found != read_note(home, prefix):
        path = note_file(home, prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, msgspec.json.encode(found))

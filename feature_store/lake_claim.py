"""To which home directory the lake of an object store belongs.

Who writes a lake holds locks in the home directory. They keep nobody away who has another home: the lake says whose it
is.
"""

import fcntl
import os
import uuid

from feature_store.contracts.errors import InvalidInput
from feature_store.home import Home

MARK = ".claim"  # in the home, beside the locks
_OWNER = "_home"


def claim(home: Home) -> None:
    """Has the lake belong to this home, if it belongs to none. Raises InvalidInput if it is another one's, or in a
    store that cannot tell who comes first. A lake in the home itself is the home's anyway."""
    if home.store is None:
        return
    mine, owner = _mark_of(home), home.store.root / _OWNER
    if not owner.exists():
        owner.create(mine)
        if owner.create(mine):
            owner.unlink()
            raise InvalidInput(
                f"{home.store.url} takes a conditional put (If-None-Match: *) of what is there already: two writers "
                "could not be told apart. Set lake.url to a store that refuses it, as S3 and MinIO do."
            )
    if owner.read_bytes() != mine:
        raise InvalidInput(
            f"The lake {home.store.url} belongs to another home directory than {home.root}. Set lake.url to a folder "
            f"of its own. If the other one is gone for good and nothing of it runs any more, remove the object {owner}."
        )


def _mark_of(home: Home) -> bytes:
    home.aside.mkdir(parents=True, exist_ok=True)
    with (home.aside / MARK).open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if not (mark := file.read()):
            mark = uuid.uuid4().hex.encode()
            file.write(mark)
            file.flush()
            os.fsync(file.fileno())
    return mark

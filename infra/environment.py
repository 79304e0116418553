"""The environment variables that are settings.

Left out are those that Kubernetes adds for each Service of the namespace (service links: a Service called
matchloop-api makes MATCHLOOP_API_PORT=tcp://10.0.0.1:80 and a dozen more). Secrets may be given as files, as Docker and
Kubernetes mount them: MATCHLOOP_SECRET_FILE=/run/secrets/matchloop is MATCHLOOP_SECRET with what that file holds.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from feature_store.contracts.errors import InvalidInput

_FILE = "_FILE"
_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_LINK_URL = re.compile(r"(tcp|udp|sctp)://")


def given(environment: Mapping[str, str], prefix: str, secrets: Collection[str]) -> dict[str, str]:
    """The variables with the prefix, in capitals, the empty ones and the service links left out.

    secrets: those that may come as files. Raises InvalidInput if such a file cannot be read, holds nothing, or competes
    with its variable.
    """
    found = {
        name.upper(): value
        for name, value in environment.items()
        if name.upper().startswith(prefix) and value and not _is_link(name.upper(), value)
    }
    for name in secrets:
        path = found.pop(name + _FILE, None)
        if path is None:
            continue
        if name in found:
            raise InvalidInput(f"Both {name} and {name}{_FILE} are set. Unset one of them.")
        found[name] = _content(name + _FILE, Path(path))
    return found


def _is_link(name: str, value: str) -> bool:
    return bool(_LINK.search(name) or (name.endswith("_PORT") and _LINK_URL.match(value)))


def _content(name: str, path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise InvalidInput(f"The file {path} that {name} names cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"The file {path} that {name} names is not text (UTF-8).") from None
    if not text:
        raise InvalidInput(f"The file {path} that {name} names is empty.")
    return text

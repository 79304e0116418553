"""Where an installation keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path

from feature_store.lake_path import LakePath
from feature_store.object_store import ObjectPath, ObjectStore

_LAKE = "lake"


@dataclass(frozen=True)
class Home:
    """The home directory, which all hosts of an installation share."""

    root: Path
    store: ObjectStore | None = None  # that has the lake, if it is not in the home itself

    @property
    def lake(self) -> LakePath:
        """Imported history, and the log as the sink wrote it: feature_store/contracts/columns.py."""
        return self.aside if self.store is None else self.store.root

    @property
    def aside(self) -> Path:
        """Locks, marks and drafts of those who write the lake, wherever it is itself."""
        return self.root / _LAKE

    @property
    def releases(self) -> Path:
        """Releases by id: feature_store/contracts/manifest.py."""
        return self.root / "releases"

    @property
    def namespaces(self) -> Path:
        """Namespaces by id: feature_store/namespace.py."""
        return self.root / "namespaces"

    @property
    def runs(self) -> Path:
        """Training runs by id, each with what it read and made: offline_training/runs/run.py."""
        return self.root / "runs"

    @property
    def verdicts(self) -> Path:
        """What the gate said of releases: offline_training/promotion/gate.py."""
        return self.root / "verdicts"

    @property
    def shadow(self) -> Path:
        """What releases answered unseen, by release: feature_store/contracts/columns.py."""
        return self.root / "shadow"

    @property
    def deployment(self) -> Path:
        """What serves, by prefix of keys: feature_store/deployment_note.py."""
        return self.root / "deployment"

    @property
    def removed(self) -> Path:
        """Files called like releases that were removed here, and that MLflow still has."""
        return self.root / "removed"

    def name_of(self, path: LakePath) -> str:
        """What a file of the home is called in it, wherever the lake is."""
        if isinstance(path, ObjectPath):
            return f"{_LAKE}/{path.path}"
        return path.relative_to(self.root).as_posix()

    def named(self, name: str) -> LakePath:
        """The file that is called so."""
        folder, _, rest = name.partition("/")
        return self.lake / rest if folder == _LAKE else self.root / name

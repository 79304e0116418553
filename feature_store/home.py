"""Where an installation keeps what it makes."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """The home directory, which all hosts of an installation share."""

    root: Path

    @property
    def lake(self) -> Path:
        """Imported history, and the log as the sink wrote it: feature_store/contracts/columns.py."""
        return self.root / "lake"

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

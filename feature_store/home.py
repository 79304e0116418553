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
    def training_sets(self) -> Path:
        """What the Spark job made of the lake last."""
        return self.root / "cache" / "training_sets"

    @property
    def checkpoints(self) -> Path:
        """What trainings that are under way go on from if they are killed."""
        return self.root / "cache" / "checkpoints"

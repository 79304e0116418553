"""A training that was killed goes on where it was, and ends in the same place."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from offline_training.progress import silent
from offline_training.retrieval.dataset import read_items, read_sequences
from offline_training.retrieval.training import Fitted, fit_two_tower
from offline_training.settings import TrainingSettings

# Kills itself with SIGKILL when the second pass has been saved and the third is under way.
KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from offline_training.retrieval.dataset import read_items, read_sequences
from offline_training.retrieval.training import fit_two_tower
from offline_training.settings import TrainingSettings

def progress(done, label):
    if "epoch 3" in label:
        os.kill(os.getpid(), signal.SIGKILL)

sets, checkpoints, settings = Path(sys.argv[1]), Path(sys.argv[2]), TrainingSettings.model_validate_json(sys.argv[3])
catalogue = read_items(sets)
sequences = read_sequences(sets, catalogue)
fit_two_tower(catalogue, sequences, np.diff(sequences.start), settings, progress, checkpoints)
"""


def fit(sets: Path, settings: TrainingSettings, checkpoints: Path | None) -> Fitted:
    catalogue = read_items(sets)
    sequences = read_sequences(sets, catalogue)
    return fit_two_tower(catalogue, sequences, np.diff(sequences.start), settings, silent, checkpoints)


def test_a_killed_training_ends_in_the_same_place(sets: Path, settings: TrainingSettings, tmp_path: Path) -> None:
    short = settings.model_copy(update={"epochs": 4, "batch_size": 2})
    arguments = [str(sets), str(tmp_path), short.model_dump_json()]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    [folder] = tmp_path.iterdir()
    assert [file.name for file in folder.iterdir()] == ["last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["epoch"] == 1

    resumed, straight = fit(sets, short, tmp_path), fit(sets, short, None)
    assert resumed.losses == straight.losses
    assert len(resumed.losses) == 4 + 1
    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    assert not list(tmp_path.iterdir()), "what a training left is removed when it is done"


def test_other_settings_do_not_go_on_from_it(sets: Path, settings: TrainingSettings, tmp_path: Path) -> None:
    one = settings.model_copy(update={"epochs": 1})
    fit(sets, one, tmp_path)
    other = fit(sets, one.model_copy(update={"seed": 5}), tmp_path)
    assert other.losses == fit(sets, one.model_copy(update={"seed": 5}), None).losses

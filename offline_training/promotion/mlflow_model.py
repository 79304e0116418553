"""A release as a model of MLflow: its files, the code that answers with them, what it takes and gives."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from online_serving.release_files import ITEMS

_ROOT = Path(__file__).parents[2]
_MODEL = Path(__file__).with_name("pyfunc_model.py")
_CODE = ("feature_store", "streaming", "online_serving")  # what it imports of ours
_REQUIRED = ("faiss-cpu", "msgspec", "numba", "numpy", "onnxruntime", "pandas", "pyarrow", "pydantic", "scipy")
_SLATE_SIZE = 10
_EXAMPLE_ITEMS = 3


@contextmanager
def mlflow_model(release: Path) -> Iterator[Path]:
    """A folder with the release as a model of the flavour `python_function`, until the context ends. It holds all that
    answering takes but public packages: nothing in it is unpickled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about type hints of its own
        from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
    from mlflow.types.schema import Array

    text, moment = Array(DataType.string), Array(DataType.long)
    asked: list[ColSpec | TensorSpec] = [
        ColSpec(text, "history"),
        ColSpec(text, "kinds", required=False),
        ColSpec(moment, "times", required=False),
        ColSpec(text, "profile", required=False),
    ]
    given: list[ColSpec | TensorSpec] = [ColSpec(text, "items"), ColSpec(Array(DataType.double), "predicted")]
    size = ParamSpec("slate_size", DataType.long, _SLATE_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        pyfunc.save_model(
            str(path),
            python_model=str(_MODEL),
            artifacts={"release": str(release)},
            code_paths=[str(_ROOT / name) for name in _CODE],
            signature=ModelSignature(Schema(asked), Schema(given), ParamSchema([size])),
            input_example=(pd.DataFrame({"history": [_some_items(release), []]}), {"slate_size": _SLATE_SIZE}),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIRED],
        )
        yield path


def _some_items(release: Path) -> list[str]:
    names = pq.read_table(release / ITEMS, columns=["item"]).column("item")
    chosen = np.linspace(0, len(names) - 1, min(_EXAMPLE_ITEMS, len(names))).astype(np.int64)
    return [str(names[place].as_py()) for place in chosen.tolist()]

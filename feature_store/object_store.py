"""A folder of an object store that speaks S3, with what the lake asks of a folder of the file system.

An object is there whole or not at all, and is listed from then on: what a rename does in a file system, a put does
here. `ObjectPath.create` is a conditional put: of two who write the same name the first one wins.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from feature_store.contracts.errors import InvalidInput, Unavailable

URL = re.compile(r"^s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9._=-]+)*)/?$")
_SMALL = 4 << 20  # bytes that are read at once, whatever of them is asked for
_ATTEMPTS = 5
_MISSING = ("404", "NoSuchKey")


@dataclass(frozen=True)
class ObjectStore:
    """Where the folder is. Credentials are those that AWS' own tools find: variables, ~/.aws, the role of the machine.
    Raises InvalidInput if the URL is none."""

    url: str  # s3://bucket/folder
    endpoint: str | None = None  # of another server than AWS'
    region: str | None = None

    def __post_init__(self) -> None:
        _parsed(self.url)

    @property
    def root(self) -> "ObjectPath":
        """The folder."""
        return ObjectPath(self, "")

    @property
    def bucket(self) -> str:
        """The bucket that the folder is in."""
        return _parsed(self.url)[0]

    def key(self, path: str) -> str:
        """The whole key of what has this path in the folder."""
        return "/".join(filter(None, (_parsed(self.url)[1], path)))

    @cached_property
    def client(self) -> Any:
        """boto3's, which threads may share. Raises ModuleNotFoundError without the extra s3."""
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            retries={"mode": "standard", "max_attempts": _ATTEMPTS},
            s3={"addressing_style": "path"} if self.endpoint else {},
        )
        try:
            return boto3.session.Session().client(
                "s3", endpoint_url=self.endpoint, region_name=self.region, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise Unavailable(f"The object store {self.url} cannot be reached: {error}.") from None

    @contextlib.contextmanager
    def telling(self, right: str) -> Iterator[None]:
        """What goes wrong within is told as Unavailable, naming the right that was needed if that is missing. Raises
        FileNotFoundError where there is no such object."""
        client = self.client  # without the extra there is nothing to catch either
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

        try:
            yield
        except (NoCredentialsError, PartialCredentialsError):
            raise Unavailable(
                f"There are no credentials for {self.url}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "AWS_PROFILE, or give this machine a role."
            ) from None
        except ClientError as error:
            self._tell(error, right)
        except S3UploadFailedError as error:
            if isinstance(error.__context__, ClientError):
                self._tell(error.__context__, right)
            raise Unavailable(f"The object store {self.url} does not take a file: {error}.") from None
        except BotoCoreError as error:
            where = client.meta.endpoint_url
            raise Unavailable(f"The object store {self.url} does not answer at {where}: {error}.") from None

    def _tell(self, error: Any, right: str) -> None:
        code = str(error.response["Error"]["Code"])
        if code in _MISSING:
            raise FileNotFoundError(f"There is no such object in {self.url}.") from None
        if code == "NoSuchBucket":
            raise Unavailable(
                f"There is no bucket {self.bucket} at {self.client.meta.endpoint_url}. Make it, or correct lake.url."
            ) from None
        if code in ("403", "AccessDenied", "AllAccessDisabled"):
            raise Unavailable(f"{self.url} refuses {right}. Give these credentials that right on it.") from None
        raise Unavailable(f"{self.url} refuses {right}: {error}.") from None


@dataclass(frozen=True)
class ObjectPath:
    """An object, or a folder: what objects' names begin with. It is spelt like a pathlib.Path as far as it goes."""

    store: ObjectStore
    path: str  # in the store, without a slash at either end
    size: int | None = field(default=None, compare=False)  # bytes, as it was listed
    tag: str | None = field(default=None, compare=False)  # of its content, as it was listed

    def __str__(self) -> str:
        return f"s3://{self.store.bucket}/{self.key}"

    def __truediv__(self, name: str) -> "ObjectPath":
        return ObjectPath(self.store, f"{self.path}/{name}".lstrip("/"))

    @property
    def key(self) -> str:
        """The whole name of the object."""
        return self.store.key(self.path)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names on the way."""
        return PurePosixPath(self.path).parts

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The last part without what is behind its last dot."""
        return PurePosixPath(self.path).stem

    @property
    def suffix(self) -> str:
        """The last dot of the name, and what is behind it."""
        return PurePosixPath(self.path).suffix

    @property
    def parent(self) -> "ObjectPath":
        """The folder that it is in."""
        return ObjectPath(self.store, str(PurePosixPath(self.path).parent).removeprefix("."))

    def with_name(self, name: str) -> "ObjectPath":
        """Another one in its folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> "ObjectPath":
        """The same with another suffix."""
        return self.with_name(self.stem + suffix)

    def relative_to(self, folder: "ObjectPath") -> PurePosixPath:
        """The way there from a folder that it is in."""
        return PurePosixPath(self.path).relative_to(folder.path)

    def glob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects and folders below, where each part of the way matches a part of the pattern."""
        first, _, rest = pattern.partition("/")
        for found in self._children():
            if fnmatchcase(found.name, first):
                if not rest:
                    yield found
                elif found.size is None:
                    yield from found.glob(rest)

    def rglob(self, pattern: str) -> Iterator["ObjectPath"]:
        """Objects anywhere below whose names match the pattern."""
        for found in self._listed():
            if fnmatchcase(found.name, pattern):
                yield found

    def is_dir(self) -> bool:
        """Whether there is an object below."""
        with self.store.telling("s3:ListBucket"):
            found = self.store.client.list_objects_v2(Bucket=self.store.bucket, Prefix=f"{self.key}/", MaxKeys=1)
            return bool(found["KeyCount"])

    def is_file(self) -> bool:
        """Whether there is the object."""
        try:
            self.looked_up()
        except FileNotFoundError:
            return False
        return True

    exists = is_file  # nobody asks whether folders are there: they need not be made

    def looked_up(self) -> "ObjectPath":
        """The same with its size and tag. Raises FileNotFoundError if there is no such object."""
        with self.store.telling("s3:GetObject"):
            found = self.store.client.head_object(Bucket=self.store.bucket, Key=self.key)
        return ObjectPath(self.store, self.path, found["ContentLength"], found["ETag"])

    def open(self) -> "ObjectFile":
        """For reading any part of it."""
        return ObjectFile(self if self.size is not None else self.looked_up())

    def read_bytes(self) -> bytes:
        """Its content. Raises FileNotFoundError if there is no such object."""
        with self.store.telling("s3:GetObject"):
            content: bytes = self.store.client.get_object(Bucket=self.store.bucket, Key=self.key)["Body"].read()
        return content

    def fetch(self, target: Path) -> None:
        """Writes its content to a file."""
        with self.store.telling("s3:GetObject"):
            self.store.client.download_file(self.store.bucket, self.key, str(target))

    def put(self, content: bytes | Path) -> None:
        """Has it hold the content, or a file's, in place of what it held."""
        with self.store.telling("s3:PutObject"):
            if isinstance(content, Path):
                self.store.client.upload_file(str(content), self.store.bucket, self.key)
            else:
                self.store.client.put_object(Bucket=self.store.bucket, Key=self.key, Body=content)

    def create(self, content: bytes) -> bool:
        """Has it hold the content unless there is such an object. Returns whether there was none; a put whose answer
        got lost on the way finds its own."""
        from botocore.exceptions import ClientError

        with self.store.telling("s3:PutObject"):
            for attempt in range(_ATTEMPTS):
                try:
                    self.store.client.put_object(Bucket=self.store.bucket, Key=self.key, Body=content, IfNoneMatch="*")
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    if code == "PreconditionFailed":
                        return False
                    if code != "ConditionalRequestConflict" or attempt == _ATTEMPTS - 1:
                        raise  # somebody else is about to put it: soon it is there
                else:
                    break
        return True

    def rename(self, target: "ObjectPath") -> None:
        """Gives it another name. For a moment it has both."""
        with self.store.telling("s3:PutObject"):
            self.store.client.copy({"Bucket": self.store.bucket, "Key": self.key}, self.store.bucket, target.key)
        self.unlink()

    def unlink(self, missing_ok: bool = True) -> None:
        """Removes it. missing_ok: an object that is not there is removed as well, whatever is asked."""
        del missing_ok
        with self.store.telling("s3:DeleteObject"):
            self.store.client.delete_object(Bucket=self.store.bucket, Key=self.key)

    def _children(self) -> Iterator["ObjectPath"]:
        for page in self._pages(Delimiter="/"):
            for folder in page.get("CommonPrefixes", ()):
                yield self / folder["Prefix"].rstrip("/").rpartition("/")[2]
            yield from self._objects(page)

    def _listed(self) -> Iterator["ObjectPath"]:
        for page in self._pages():
            yield from self._objects(page)

    def _objects(self, page: Any) -> Iterator["ObjectPath"]:
        begins = len(self.store.key("")) + 1 if self.store.key("") else 0
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):  # what consoles make for a folder
                yield ObjectPath(self.store, found["Key"][begins:], found["Size"], found["ETag"])

    def _pages(self, **how: str) -> Iterator[Any]:
        prefix = f"{self.key}/" if self.key else ""
        pages = self.store.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.store.bucket, Prefix=prefix, **how
        )
        with self.store.telling("s3:ListBucket"):
            yield from pages


class ObjectFile(io.RawIOBase):
    """The content of an object that was looked up, for reading any part of it: a request for each part, one for all of
    it if it is small. Raises Unavailable if it has been replaced meanwhile."""

    def __init__(self, path: ObjectPath) -> None:
        super().__init__()
        assert path.size is not None
        self._path, self._size = path, path.size
        self._at = 0
        self._content: bytes | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to an offset from the beginning, from here or from the end."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many bytes at most, all that are left if it is negative."""
        begin, end = self._at, self._size if size < 0 else min(self._size, self._at + size)
        if end <= begin:
            return b""
        self._at = end
        if self._size > _SMALL:
            return self._get(begin, end)
        if self._content is None:
            self._content = self._get(0, self._size)
        return self._content[begin:end]

    def _get(self, begin: int, end: int) -> bytes:
        asked = {"Range": f"bytes={begin}-{end - 1}"} | ({"IfMatch": self._path.tag} if self._path.tag else {})
        store = self._path.store
        with store.telling("s3:GetObject"):
            content: bytes = store.client.get_object(Bucket=store.bucket, Key=self._path.key, **asked)["Body"].read()
        return content


def _parsed(url: str) -> tuple[str, str]:
    """Bucket and folder."""
    found = URL.fullmatch(url)
    if found is None:
        raise InvalidInput(f"lake.url is {url!r}. It must be s3://BUCKET/FOLDER, or empty: then it is in the home.")
    return found[1], found[2].strip("/")

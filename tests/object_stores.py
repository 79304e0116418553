"""A server that speaks S3, for tests."""

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator

from moto.server import ThreadedMotoServer

from feature_store.object_store import ObjectStore

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def running_store() -> Iterator[str]:
    """The address of a server without a bucket, and credentials for it in the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    before = {name: os.environ.get(name) for name in _CREDENTIALS}
    os.environ.update(_CREDENTIALS)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def new_store(endpoint: str) -> ObjectStore:
    """An empty folder of a bucket of its own."""
    store = ObjectStore(f"s3://lake-{uuid.uuid4().hex}/shop", endpoint)
    store.client.create_bucket(Bucket=store.bucket)
    return store

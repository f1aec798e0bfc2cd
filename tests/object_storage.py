"""A server of object storage on this machine, for tests that import `bucket`."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_numbers = itertools.count()


@pytest.fixture(scope="module")
def storage() -> Iterator[Any]:
    """The file system, as processes that are started meanwhile reach it too."""
    s3fs = pytest.importorskip("s3fs", reason="the extra vfscreen[storage] is not installed")
    moto = pytest.importorskip("moto.server", reason="moto[s3] and flask are not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it has a line for each request
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield s3fs.S3FileSystem(use_listings_cache=False)
    server.stop()


@pytest.fixture
def bucket(storage: Any) -> str:
    """The URL of an empty bucket."""
    url = f"s3://vfscreen-{next(_numbers)}"
    storage.mkdir(url)
    return url


def uploaded(storage: Any, folder: Path, url: str) -> str:
    """The URL at which a folder's content now is."""
    storage.put(f"{folder}/", f"{url}/", recursive=True)
    return url

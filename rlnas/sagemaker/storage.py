"""Files and folders in S3."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import CloudError, RequestError
from rlnas.sagemaker.checkpoints import digest_of
from rlnas.sagemaker.service import answered, is_absent, is_forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_KEY = re.compile(r"[\w!.*'()/-]*", re.ASCII)
MAX_KEY = 512


@dataclass(frozen=True, slots=True)
class Place:
    """A folder in S3.

    Attributes:
        bucket: Name of the bucket.
        key: Path inside it, without ``/`` at either end; empty for the bucket itself.

    Raises:
        RequestError: If no bucket can have such a name, or the key has characters that tools stumble over.
    """

    bucket: str
    key: str = ""

    def __post_init__(self) -> None:
        name = self.bucket
        if not _BUCKET.fullmatch(name) or ".." in name or _ADDRESS.fullmatch(name):
            raise RequestError(
                f"bucket={name!r} is no name of an S3 bucket: it has 3 to 63 lower-case letters, digits, "
                "dots and hyphens, and begins and ends with a letter or digit"
            )
        object.__setattr__(self, "key", self.key.strip("/"))
        if not _KEY.fullmatch(self.key) or len(self.key) > MAX_KEY or "//" in self.key:
            raise RequestError(
                f"the key prefix {self.key[:60]!r} must be at most {MAX_KEY} letters, digits and "
                "!-_.*'() in parts between single slashes"
            )

    @classmethod
    def parse(cls, uri: str) -> Place:
        """The place that an address such as ``s3://bucket/path`` names.

        Raises:
            RequestError: If it is no such address.
        """
        match = re.fullmatch(r"s3://([^/]+)/?(.*)", uri)
        if match is None:
            raise RequestError(f"{uri!r} is no address in S3; write s3://bucket/path")
        return cls(match[1], match[2])

    @property
    def uri(self) -> str:
        """Its address, ``s3://bucket/path``."""
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}"

    def __truediv__(self, name: str) -> Place:
        return Place(self.bucket, f"{self.key}/{name}")


def upload(s3: BaseClient, source: Path, place: Place) -> int:
    """Copy a file, or all files of a folder, into a place.

    Returns:
        Files that were copied.

    Raises:
        CloudError: If S3 refuses or cannot be reached.
    """
    count = 0
    for name, path in files_below(source):
        with answered(f"write to {place.uri}/{name}"):
            s3.upload_file(str(path), place.bucket, f"{place.key}/{name}")
        count += 1
    return count


def download(s3: BaseClient, bucket: str, key: str, path: Path) -> bool:
    """Copy a file from S3.

    Returns:
        False if it is not there: checkpoints come and go while a job runs.

    Raises:
        CloudError: If S3 refuses or cannot be reached.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with answered(f"read s3://{bucket}/{key}"):
            s3.download_file(bucket, key, str(path))
    except CloudError as error:
        if is_absent(error) or (is_forbidden(error) and key not in _listed(s3, bucket, key)):
            return False
        raise
    return True


def keys(s3: BaseClient, place: Place) -> list[str]:
    """Keys of all files in a place.

    Raises:
        CloudError: If S3 refuses or cannot be reached.
    """
    return _listed(s3, place.bucket, f"{place.key}/")


def files_below(source: Path) -> Iterator[tuple[str, Path]]:
    """A file by its name, or the files of a folder by their paths inside it, in order; none hidden."""
    if source.is_file():
        yield source.name, source
        return
    for place, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(place, name)
                yield path.relative_to(source).as_posix(), path


def digest_of_files(source: Path) -> str:
    """What tells the content of a file or folder from that of others: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, path in files_below(source):
        digest.update(f"{digest_of(path)} {name}\n".encode())
    return digest.hexdigest()[:16]


def _listed(s3: BaseClient, bucket: str, prefix: str) -> list[str]:
    """Keys of all files that begin like this."""
    found = []
    with answered(f"list s3://{bucket}/{prefix.rstrip('/')}"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            found += [entry["Key"] for entry in page.get("Contents", ()) if not entry["Key"].endswith("/")]
    return found

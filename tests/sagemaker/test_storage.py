from __future__ import annotations

import re

import boto3
import pytest
from botocore.exceptions import ClientError

from rlnas.errors import CloudError, RequestError
from rlnas.sagemaker.storage import Place, digest_of_files, download, files_below, keys, upload

PLACE = Place("searches", "a/b")


@pytest.fixture
def s3(aws):
    return boto3.client("s3")


@pytest.fixture
def tree(tmp_path):
    for name in ("tree/one", "tree/deep/two", "tree/.hidden", "tree/.git/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path / "tree"


def test_what_went_comes_back(s3, tree, tmp_path):
    assert upload(s3, tree, PLACE) == 2
    assert keys(s3, PLACE) == ["a/b/deep/two", "a/b/one"]
    assert download(s3, "searches", "a/b/deep/two", tmp_path / "back" / "two")
    assert (tmp_path / "back" / "two").read_text() == "tree/deep/two"


def test_a_file_goes_by_its_name(s3, tree):
    assert upload(s3, tree / "one", PLACE) == 1
    assert keys(s3, PLACE) == ["a/b/one"]
    assert keys(s3, Place("searches", "a/bb")) == keys(s3, Place("searches", "a/b/o")) == []


def test_what_is_not_there_is_no_fault(s3, tmp_path):
    assert not download(s3, "searches", "a/b/gone", tmp_path / "gone")


@pytest.mark.parametrize("code", ["403", "AccessDenied"])
def test_a_refusal_is_told_from_an_absence_that_looks_like_one(s3, tree, tmp_path, monkeypatch, code):
    """Under a policy that lets some prefixes be listed only, S3 tells of no absence."""
    upload(s3, tree, PLACE)

    def refuse(*_):
        raise ClientError({"Error": {"Code": code, "Message": "Forbidden"}}, "HeadObject")

    monkeypatch.setattr(s3, "download_file", refuse)
    assert not download(s3, "searches", "a/b/on", tmp_path / "back")
    with pytest.raises(CloudError, match=rf"cannot read s3://searches/a/b/one: {code}: Forbidden"):
        download(s3, "searches", "a/b/one", tmp_path / "back")


def test_a_bucket_that_is_not_there_is_named(s3, tree, tmp_path):
    with pytest.raises(CloudError, match=r"cannot list s3://absent/a: NoSuchBucket"):
        keys(s3, Place("absent", "a"))
    with pytest.raises(CloudError, match=r"cannot write to s3://absent/a/one: .*NoSuchBucket"):
        upload(s3, tree, Place("absent", "a"))


def test_places_are_written_and_read():
    assert Place("bucket", "/a/b/").uri == "s3://bucket/a/b"
    assert Place("bucket").uri == "s3://bucket"
    assert Place.parse("s3://bucket/a/") == Place("bucket", "a")
    assert (Place("bucket", "a") / "b").key == "a/b"


@pytest.mark.parametrize("bucket", ["ab", "Bucket", "a_b", "-ab", "a..b", "1.2.3.4", "x" * 64])
def test_a_name_that_no_bucket_has_is_refused(bucket):
    message = f"bucket={bucket!r} is no name of an S3 bucket: it has 3 to 63 lower-case letters"
    with pytest.raises(RequestError, match=re.escape(message)):
        Place(bucket)


@pytest.mark.parametrize("key", ["a b", "a//b", "a?b", "ä", "x" * 513])
def test_a_key_that_tools_stumble_over_is_refused(key):
    with pytest.raises(RequestError, match=r"the key prefix '.*' must be at most 512 letters, digits and"):
        Place("bucket", key)


def test_an_address_that_is_none_is_refused():
    with pytest.raises(RequestError, match=r"'bucket/a' is no address in S3; write s3://bucket/path"):
        Place.parse("bucket/a")


def test_equal_files_have_equal_digests(tree, tmp_path):
    first = digest_of_files(tree)
    assert first == digest_of_files(tree)
    assert len(first) == 16
    (tree / ".hidden").write_text("other")
    assert digest_of_files(tree) == first
    (tree / "one").rename(tree / "three")
    assert digest_of_files(tree) != first
    assert [name for name, _ in files_below(tree)] == ["three", "deep/two"]

from __future__ import annotations

import io
import subprocess
import sys
import tarfile

import pytest

from rlnas.errors import ContainerError, RequestError
from rlnas.sagemaker.packing import ARCHIVE, pack_code, unpack_code


@pytest.fixture
def reward(tmp_path):
    path = tmp_path / "my_rewards.py"
    path.write_text("def good(metrics):\n    return metrics.accuracy\n")
    return path


def test_packed_code_runs_and_nothing_else_is_in_it(tmp_path, reward):
    pack = pack_code(tmp_path, [reward])
    assert pack.path == tmp_path / ARCHIVE
    unpack_code(pack.path, pack.digest, tmp_path / "code")
    files = [path for path in (tmp_path / "code").rglob("*") if path.is_file()]
    assert len(files) == pack.n_files > 100
    assert {path.suffix for path in files} == {".py", ".typed"}
    done = subprocess.run(
        [sys.executable, "-c", "import rlnas, my_rewards; print(rlnas.__file__)"],
        env={"PYTHONPATH": str(tmp_path / "code")},
        cwd=tmp_path / "code",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path / "code" / "rlnas" / "__init__.py")


def test_equal_code_has_an_equal_archive(tmp_path, reward):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = pack_code(tmp_path / "one", [reward]), pack_code(tmp_path / "two", [reward])
    assert one.path.read_bytes() == two.path.read_bytes()
    assert one.digest == two.digest != pack_code(tmp_path / "one").digest


def test_a_package_goes_along_without_what_is_hidden(tmp_path):
    for name in ("mine/__init__.py", "mine/part.py", "mine/.env", "mine/__pycache__/x.py", "mine/data.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    with tarfile.open(pack_code(tmp_path, [tmp_path / "mine"]).path) as archive:
        names = {name for name in archive.getnames() if name.startswith("mine")}
    assert names == {"mine/__init__.py", "mine/part.py"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.py", None, r"absent.py is not there; name a Python file or a folder of such"),
        ("data.csv", "", r"data.csv is no Python file; data belong to --task"),
        ("my-rewards.py", "", r"my-rewards.py cannot be imported by its name, 'my-rewards'; rename it"),
        ("rlnas.py", "", r"rlnas.py cannot be imported by its name, 'rlnas'; rename it"),
        ("keys.py", "\nK = 'AKI" + "A" * 17 + "'", r"line 2 of keys.py looks like an AWS access key"),
    ],
)
def test_a_module_that_cannot_go_along_is_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        pack_code(tmp_path, [tmp_path / name])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["rew.v2/__init__.py"], r"rew.v2 cannot be imported by its name, 'rew.v2'; rename it"),
        (["empty/data.csv"], r"empty is a folder without Python files; name another"),
        (["a/r.py", "b/r.py"], r"b/r.py is the second one of the name 'r'; rename one"),
        (["a/r.py", "b/r/__init__.py"], r"r is the second one of the name 'r'; rename one"),
    ],
)
def test_modules_that_could_not_be_imported_are_refused(tmp_path, names, message):
    modules = []
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
        modules.append(tmp_path / name if name.endswith("r.py") else (tmp_path / name).parent)
    with pytest.raises(RequestError, match=message):
        pack_code(tmp_path, modules)


def test_other_code_than_the_job_says_is_refused(tmp_path):
    pack = pack_code(tmp_path)
    with pytest.raises(
        ContainerError, match=rf"has the SHA-256 {pack.digest}, but the job was launched with 0+;"
    ):
        unpack_code(pack.path, "0" * 64, tmp_path / "code")
    assert not (tmp_path / "code").exists()
    with pytest.raises(
        ContainerError, match=r"the channel of the code holds no code.tar.gz; launch the job"
    ):
        unpack_code(tmp_path / "absent", pack.digest, tmp_path / "code")


@pytest.mark.parametrize("content", [b"text", "outside"])
def test_what_is_no_archive_of_ours_is_refused(tmp_path, content):
    from rlnas.sagemaker.checkpoints import digest_of

    path = tmp_path / ARCHIVE
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("../outside"), io.BytesIO())
    with pytest.raises(ContainerError, match=r"cannot unpack .*code.tar.gz"):
        unpack_code(path, digest_of(path), tmp_path / "code" / "deep")
    assert not (tmp_path / "code" / "outside").exists()

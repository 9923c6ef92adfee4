"""The code of a job: this package, and modules of one's own, in one archive."""

from __future__ import annotations

import gzip
import io
import os
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import ContainerError, RequestError
from rlnas.sagemaker.checkpoints import digest_of
from rlnas.sagemaker.hyperparameters import check_no_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ARCHIVE = "code.tar.gz"
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Pack:
    """Packed code.

    Attributes:
        path: The archive.
        digest: Its SHA-256 in hexadecimal; equal code has equal archives.
        n_files: Files in it.
    """

    path: Path
    digest: str
    n_files: int


def pack_code(folder: Path, modules: Sequence[Path] = ()) -> Pack:
    """Pack this package as it is imported, and modules that a reward or the like comes from.

    Args:
        folder: Where the archive is written.
        modules: Python files and folders of such, which can be imported by their names in the container.

    Raises:
        RequestError: If one is not there, is no Python or empty, has a name that cannot be imported or the
            name of another one or of this package, or holds what looks like a credential.
    """
    files = dict(_files_of(_PACKAGE, "rlnas"))
    names: set[str] = set()
    for module in modules:
        _check_module(module)
        name = _import_name(module)
        if name in names:
            raise RequestError(f"--module={module} is the second one of the name {name!r}; rename one")
        names.add(name)
        files |= dict(_files_of(module, module.name))
    path = folder / ARCHIVE
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed) as archive,
    ):
        for name, source in sorted(files.items()):
            content = source.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return Pack(path, digest_of(path), len(files))


def unpack_code(archive: Path, digest: str, folder: Path) -> None:
    """Unpack code for a container.

    Args:
        archive: As `pack_code` wrote it.
        digest: What it has to be: the job says so, not the place that the archive came from.
        folder: Where to; made if absent.

    Raises:
        ContainerError: If the archive is missing, another one or no archive.
    """
    if not archive.is_file():
        raise ContainerError(f"the channel of the code holds no {ARCHIVE}; launch the job again")
    found = digest_of(archive)
    if found != digest:
        raise ContainerError(
            f"{archive} has the SHA-256 {found}, but the job was launched with {digest}; launch it again"
        )
    try:
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise ContainerError(f"cannot unpack {archive}: {error}") from error


def _files_of(source: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The files to pack, by their names in the archive: no byte code and nothing hidden."""
    if source.is_file():
        yield name, source
        return
    for place, folders, names in os.walk(source):
        folders[:] = sorted(each for each in folders if each != "__pycache__" and not each.startswith("."))
        for each in names:
            path = Path(place, each)
            if path.suffix in (".py", ".pyi") or each == "py.typed":
                yield f"{name}/{path.relative_to(source).as_posix()}", path


def _import_name(module: Path) -> str:
    return module.stem if module.is_file() else module.name


def _check_module(module: Path) -> None:
    if not module.exists():
        raise RequestError(f"--module={module} is not there; name a Python file or a folder of such")
    if module.is_file() and module.suffix != ".py":
        raise RequestError(f"--module={module} is no Python file; data belong to --task")
    name = _import_name(module)
    if name == "rlnas" or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise RequestError(f"--module={module} cannot be imported by its name, {name!r}; rename it")
    files = list(_files_of(module, module.name))
    if not files:
        raise RequestError(f"--module={module} is a folder without Python files; name another")
    for name, path in files:
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            check_no_secret(f"line {number} of {name}", line)

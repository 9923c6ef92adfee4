"""Subnets of a finished or running search as models of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.deploy import export
from rlnas.errors import RunFolderError
from rlnas.history import History
from rlnas.run.folder import RunFolder, write_folder
from rlnas.run.models import model_path, single_model
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from rlnas.space import SubnetConfig


def export_chosen(
    run: str | Path, out: str | Path, target_ratio: float | None = None, *, delivered: bool = False
) -> Path:
    """Copy the chosen subnet of a finished run.

    Args:
        run: The run folder.
        out: The folder to write.
        target_ratio: Which one, of a run for several targets.
        delivered: Whether it is to be as the run delivered it, also where it was fine-tuned since.

    Returns:
        What was copied.

    Raises:
        RunFolderError: If this is no finished run, it has several models and none is named or no such
            one, or the new folder is there already or cannot be written.
    """
    folder = RunFolder(Path(run))
    folder.check()
    best = folder.best
    if folder.summary.is_file():
        best = model_path(folder, single_model(folder, target_ratio), delivered=delivered)
    if not best.is_dir():
        raise RunFolderError(
            f"the run in {str(folder.path)!r} has chosen no subnet yet; finish it with --resume, "
            "or export one of its trials (--trial N)"
        )
    check_free(Path(out))
    if best.resolve() in Path(out).resolve().parents:
        raise RunFolderError(f"{str(out)!r} lies in what is copied; give another folder (--out)")
    write_folder(Path(out), lambda path: shutil.copytree(best, path, dirs_exist_ok=True))
    return best


def export_trial(run: str | Path, number: int, out: str | Path) -> SubnetConfig:
    """Write any judged subnet of a run, with the shared weights.

    Returns:
        The subnet's config.

    Raises:
        RunFolderError: If this is no run, it has no such trial, or the new folder is there already
            or cannot be written.
    """
    folder = RunFolder(Path(run))
    folder.check()
    with History.read(folder.path) as history:
        trials = history.trials
    if not trials:
        raise RunFolderError(f"the run in {str(folder.path)!r} has no trial yet; go on with it (--resume)")
    if not 0 <= number < len(trials):
        raise RunFolderError(
            f"the run in {str(folder.path)!r} has trials 0 to {len(trials) - 1}, but got trial {number}"
        )
    config = trials[number].config
    export_config(run, config, out)
    return config


def export_config(run: str | Path, config: SubnetConfig, out: str | Path) -> None:
    """Write a subnet, judged or not, with the shared weights of a run.

    Raises:
        RunFolderError: If the new folder is there already or cannot be written.
        CheckpointError: If the run has no shared weights yet.
        InvalidSubnetError: If the config does not fit them.
    """
    check_free(Path(out))
    supernet = Supernet.load(RunFolder(Path(run)).supernet)
    write_folder(Path(out), lambda path: export(supernet, config, path))


def check_free(path: Path) -> None:
    """Refuse to overwrite.

    Raises:
        RunFolderError: If something is at `path` already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunFolderError(f"{str(path)!r} is there already; delete it or give another folder (--out)")

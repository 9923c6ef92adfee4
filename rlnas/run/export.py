"""Subnets of a finished or running search as models of their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.data import read_task
from rlnas.deploy import export
from rlnas.deploy.card import Exported, write_card
from rlnas.deploy.forms import check_forms, read_forms, write_forms
from rlnas.errors import RunFolderError
from rlnas.history import History
from rlnas.report import read_summary
from rlnas.run.folder import RunFolder, write_folder
from rlnas.run.models import model_path, single_model
from rlnas.run.origin import origin_of, origin_of_trial
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.deploy.forms import Form
    from rlnas.deploy.origin import Origin
    from rlnas.space import SubnetConfig
    from rlnas.task import Split


def export_chosen(
    run: str | Path,
    out: str | Path,
    target_ratio: float | None = None,
    forms: Sequence[str] = ("hf",),
    *,
    delivered: bool = False,
) -> tuple[Path, list[Form]]:
    """Copy the chosen subnet of a finished run, and write it in other forms beside.

    Args:
        run: The run folder.
        out: The folder to write.
        target_ratio: Which one, of a run for several targets.
        forms: See `rlnas.deploy.forms.check_forms`; the loss of int8 is measured on the run's search items.
        delivered: Whether it is to be as the run delivered it, also where it was fine-tuned since.

    Returns:
        What was copied, and the forms that were written.

    Raises:
        RunFolderError: If this is no finished run, it has several models and none is named or no such
            one, or the new folder is there already or cannot be written.
        CheckpointError: If the model is damaged.
        ExportError: If a form cannot be written, or computes something else than the model.
        MissingDependencyError: If a package that a form needs is not installed.
        ValueError: If there is no such form.
    """
    chosen = check_forms(forms)
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
    origin = None
    written = list(Exported.read(best).forms)  # what is damaged is named by its own name, not the copy's
    if len(chosen) > 1 and folder.summary.is_file():
        origin = origin_of(read_summary(folder.path), best)

    def fill(path: Path) -> None:
        shutil.copytree(best, path, dirs_exist_ok=True)
        if len(chosen) > 1:
            written[:] = write_forms(path, chosen, *_search_items(folder))
        if origin is not None:
            write_card(path, origin)

    write_folder(Path(out), fill)
    return best, written


def _search_items(folder: RunFolder) -> tuple[Split | None, str]:
    """The run's search split and metric, none where its data are gone.

    In folds these are the training items, and are called so: no weights that are exported are without them.
    """
    if not folder.data.is_dir():
        return None, "accuracy"
    task = read_task(folder.data)
    return task.search if task.folds is None else task.train, task.metric


def export_trial(
    run: str | Path, number: int, out: str | Path, forms: Sequence[str] = ("hf",)
) -> tuple[SubnetConfig, list[Form]]:
    """Write any judged subnet of a run, with the shared weights, in forms as `export_chosen` does.

    Returns:
        The subnet's config, and the forms that were written.

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
    return config, export_config(run, config, out, forms, origin_of_trial(folder, trials[number]))


def export_config(
    run: str | Path,
    config: SubnetConfig,
    out: str | Path,
    forms: Sequence[str] = ("hf",),
    origin: Origin | None = None,
) -> list[Form]:
    """Write a subnet, judged or not, with the shared weights of a run, in forms as `export_chosen` does.

    Args:
        run: The run folder.
        config: The subnet.
        out: The folder to write.
        forms: See `rlnas.deploy.forms.check_forms`.
        origin: What the card says of it; by default what is known of all models.

    Returns:
        The forms that were written.

    Raises:
        RunFolderError: If the new folder is there already or cannot be written.
        CheckpointError: If the run has no shared weights yet.
        InvalidSubnetError: If the config does not fit them.
    """
    chosen = check_forms(forms)
    check_free(Path(out))
    folder = RunFolder(Path(run))
    supernet = Supernet.load(folder.supernet)
    search = _search_items(folder)[0] if len(chosen) > 1 else None
    write_folder(
        Path(out),
        lambda path: export(supernet, config, path, forms=chosen, origin=origin, search=search),
    )
    return read_forms(Path(out))


def check_free(path: Path) -> None:
    """Refuse to overwrite.

    Raises:
        RunFolderError: If something is at `path` already.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunFolderError(f"{str(path)!r} is there already; delete it or give another folder (--out)")

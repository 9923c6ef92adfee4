"""An audit of the models of a finished run, as they were delivered and as they were trained further."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.data import read_task
from rlnas.deploy.audit import audit
from rlnas.run.folder import RunFolder, read_json
from rlnas.run.models import model_path, models_for, single_model
from rlnas.supernet import Supernet

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rlnas.deploy.audit import Scope
    from rlnas.deploy.findings import Audit

logger = logging.getLogger(__name__)


def audit_run(run: str | Path, scope: Scope, target_ratio: float | None = None) -> list[Audit]:
    """Audit each model of a run with its supernet, its full model, its search items and its summary.

    A model that `rlnas.run.finetuning` has trained further is audited as it was delivered and as it is.

    Args:
        run: The run folder.
        scope: How far to go. Whether the models were trained further is what the run's settings say,
            unless it is said here.
        target_ratio: Which model, of a run for several targets; None for all of them.

    Raises:
        RunFolderError: If the run is not finished, had no such target, or its data or its supernet cannot
            be read.
        CheckpointError: If a model cannot be read.
    """
    folder = RunFolder(Path(run))
    models = models_for(folder, None) if target_ratio is None else [single_model(folder, target_ratio)]
    if scope.trained_further is None:
        scope = replace(scope, trained_further=was_trained_further(read_json(folder.config)))
    with folder.needed(folder.supernet):
        supernet = Supernet.load(folder.supernet)
    with folder.needed(folder.data):
        task = read_task(folder.data)
    audits = []
    for model in models:
        delivered, current = (model_path(folder, model, delivered=old) for old in (True, False))
        claims = {delivered: (model, scope)}
        if current != delivered:
            claims[current] = (_claims_now(model), replace(scope, trained_further=True))
        for path, (claimed, own) in claims.items():
            logger.info("audit of %s", path)
            audits.append(
                audit(path, supernet=supernet, baseline=folder.full, task=task, summary=claimed, scope=own)
            )
    return audits


def _claims_now(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary says of a model that was trained further: sizes stay, the latency is another."""
    return {"best": model["best"], "latency_ratio": model["finetuned"]["latency_ratio"]}


def was_trained_further(settings: Mapping[str, Any]) -> bool:
    """Whether the models of a run had a last training or a repair after they left the supernet.

    Args:
        settings: The run's ``config.json``.
    """
    finish_epochs, repair_items = (int(settings.get(name, 0)) for name in ("finish_epochs", "repair_items"))
    return finish_epochs > 0 or repair_items > 0

"""The beginning of a container: the code that the job brings along takes the place of the image's."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING

from rlnas.errors import ContainerError
from rlnas.sagemaker.contract import Container
from rlnas.sagemaker.hyperparameters import CODE_DIGEST
from rlnas.sagemaker.packing import ARCHIVE, unpack_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CODE_CHANNEL = "code"
RUNNING = "RLNAS_SAGEMAKER_CODE"
"""Variable that says which packed code a process runs already."""


def command_with_code(environ: Mapping[str, str]) -> tuple[Sequence[str], dict[str, str]] | None:
    """How to go on with the code that the job brings along.

    Args:
        environ: The variables of the process.

    Returns:
        The arguments and variables of the process that is to take this one's place; None where the job
        brings no code, or this is that process.

    Raises:
        ContainerError: If the job brings code and does not say which, or other code than it says.
    """
    container = Container.read(environ)
    channel = container.channels.get(CODE_CHANNEL)
    if channel is None:
        return None
    digest = container.hyperparameters.get(CODE_DIGEST)
    if digest is None:
        raise ContainerError(
            f"the job has a channel {CODE_CHANNEL!r} and no hyper-parameter {CODE_DIGEST!r} that says what "
            "it has to hold; launch it with rlnas sagemaker launch"
        )
    if environ.get(RUNNING) == digest:
        return None
    folder = container.base / "code"
    shutil.rmtree(folder, ignore_errors=True)
    unpack_code(channel / ARCHIVE, digest, folder)
    paths = [str(folder), *filter(None, [environ.get("PYTHONPATH")])]
    variables = {**environ, RUNNING: digest, "PYTHONPATH": os.pathsep.join(paths)}
    return [sys.executable, "-m", "rlnas", "sagemaker", "train"], variables

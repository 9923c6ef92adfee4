"""What is chosen among: checkpoints, each with a pooling and a number of layers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.errors import CheckpointError
from rlnas.run.summary import display_name
from rlnas.supernet import Supernet
from rlnas.supernet.checkpoint import POOLINGS, check_pooling
from rlnas.supernet.depth import first_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rlnas.task import Task

_FIRST = re.compile(r"first=(\d+)")


@dataclass(frozen=True, slots=True)
class Arm:
    """A model to choose.

    Attributes:
        model: A hub name or a folder, as `rlnas.supernet.Supernet.from_pretrained` takes it.
        pooling: ``"cls"``, ``"mean"``, or None for what the checkpoint was made for.
        first: Layers that are kept from the start of the model, at least 1, or None for all.
        name: What it is called; by default as it is written for `parse_arm`, a folder by its last parts.

    Raises:
        CheckpointError: If the pooling is unknown or no layer is kept.
    """

    model: str
    pooling: str | None = None
    first: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.pooling is not None:
            check_pooling(self.pooling)
        if self.first is not None and self.first < 1:
            raise CheckpointError(f"at least 1 layer has to be kept, but got first={self.first}")
        if not self.name:
            object.__setattr__(self, "name", display_name(self.model) + self.suffixes)

    @property
    def place(self) -> str:
        """The model as one that can be compared: a folder by its whole path, else the name."""
        return str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model

    @property
    def suffixes(self) -> str:
        """Pooling and layers as `parse_arm` reads them behind the model."""
        pooling = "" if self.pooling is None else f":{self.pooling}"
        return pooling + ("" if self.first is None else f":first={self.first}")

    def load(
        self, task: Task, *, max_seq_len: int, device: str, seed: int, trust_remote_code: bool = False
    ) -> Supernet:
        """The model, ready to be fine-tuned on a task.

        Args:
            task: Its labels shape the classifier.
            max_seq_len: Longer texts are cut to this many tokens.
            device: Where the weights live.
            seed: For the classifier's weights where the checkpoint brings none.
            trust_remote_code: Whether code inside the checkpoint may run.

        Raises:
            CheckpointError: If it cannot be read, is of no supported family, or has fewer layers.
        """
        supernet = Supernet.from_pretrained(
            self.model,
            task,
            pooling=self.pooling,
            max_seq_len=max_seq_len,
            device=device,
            seed=seed,
            trust_remote_code=trust_remote_code,
        )
        if self.first is None:
            return supernet
        try:
            return first_layers(supernet, self.first)
        except CheckpointError as error:
            raise CheckpointError(f"the model {self.name!r} cannot be had: {error}") from error


def named_apart(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """The arms under names that differ: folders by as many last parts of their paths as that takes.

    Args:
        arms: Those that were named by whoever made them keep their names.

    Raises:
        CheckpointError: If there are fewer than two, two are the same, or two were given the same name.
    """
    if len(arms) < 2:
        raise CheckpointError(
            f"a choice needs at least two models, but got {arms[0].name if arms else 'none'}; name "
            "more, or shrink one by itself (rlnas search)"
        )
    for arm, other in combinations(arms, 2):
        if (arm.place, arm.suffixes) == (other.place, other.suffixes):
            raise CheckpointError(
                f"every model may stand there once, but {arm.name!r} does twice; drop one"
            )
    told = tuple(_told_apart(arm, arms) for arm in arms)
    for arm, other in combinations(told, 2):
        if arm.name == other.name:
            raise CheckpointError(f"two models are named {arm.name!r}; give each a name of its own")
    return told


def _told_apart(arm: Arm, arms: Sequence[Arm]) -> Arm:
    """The arm with more of its path in its name if another has the same; as it is if it was named."""
    alike = [Path(other.place).parts for other in arms if other.name == arm.name]
    if len(alike) == 1 or arm.name != display_name(arm.model) + arm.suffixes:
        return arm
    own = Path(arm.place).parts
    n_parts = (n for n in range(1, len(own) + 1) if sum(one[-n:] == own[-n:] for one in alike) == 1)
    return replace(arm, name=Path(*own[-next(n_parts, 2) :]).as_posix() + arm.suffixes)


def parse_arm(text: str) -> Arm:
    """An arm as it is written: ``MODEL``, then perhaps ``:cls`` or ``:mean``, and ``:first=K``.

    A colon in the name of a folder that is there means nothing.

    Args:
        text: E.g. ``bert-base-uncased:mean:first=4``.

    Raises:
        CheckpointError: If something behind a colon is neither, or one is given twice.
    """
    model, *suffixes = [text] if Path(text).is_dir() else text.split(":")
    pooling, first = None, None
    for suffix in suffixes:
        layers = _FIRST.fullmatch(suffix)
        if suffix in POOLINGS and pooling is None:
            pooling = suffix
        elif layers is not None and first is None:
            first = int(layers[1])
        else:
            raise CheckpointError(
                f"the model {text!r} has {suffix!r} behind a colon; give a pooling ({', '.join(POOLINGS)}) "
                "and first=K for its first K layers, each once at most, as in minilm:mean:first=4"
            )
    if not model:
        raise CheckpointError(f"the model {text!r} has no name before its colon")
    return Arm(model, pooling, first)

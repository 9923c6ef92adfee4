"""The weight-sharing BERT: loading, ordering by importance, training, slicing."""

from __future__ import annotations

from rlnas.supernet.finishing import Finished, SubnetFinisher
from rlnas.supernet.repair import SubnetRepairer
from rlnas.supernet.supernet import Supernet
from rlnas.supernet.training import FullTrainer, SandwichTrainer

__all__ = [
    "Finished",
    "FullTrainer",
    "SandwichTrainer",
    "SubnetFinisher",
    "SubnetRepairer",
    "Supernet",
]

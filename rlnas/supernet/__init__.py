"""The weight-sharing BERT: loading, ordering by importance, training, slicing."""

from __future__ import annotations

from rlnas.supernet.repair import SubnetRepairer
from rlnas.supernet.supernet import Supernet
from rlnas.supernet.training import FullTrainer, SandwichTrainer, SubnetFinisher

__all__ = ["FullTrainer", "SandwichTrainer", "SubnetFinisher", "SubnetRepairer", "Supernet"]

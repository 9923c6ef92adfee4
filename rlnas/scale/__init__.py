"""More than one process, more than one machine."""

from rlnas.scale.cluster import Cluster, WorkerNeeds
from rlnas.scale.evaluator import RayEvaluator
from rlnas.scale.pool import Pool, connect, connected
from rlnas.scale.shares import Shares

__all__ = ["Cluster", "Pool", "RayEvaluator", "Shares", "WorkerNeeds", "connect", "connected"]

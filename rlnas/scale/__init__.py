"""More than one process, more than one machine."""

from rlnas.scale.cluster import Cluster, WorkerNeeds
from rlnas.scale.crew import Crew
from rlnas.scale.evaluator import RayEvaluator
from rlnas.scale.pool import Pool, connect, connected
from rlnas.scale.shares import Shares

__all__ = ["Cluster", "Crew", "Pool", "RayEvaluator", "Shares", "WorkerNeeds", "connect", "connected"]

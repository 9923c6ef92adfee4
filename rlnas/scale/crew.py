"""The workers of one evaluator, or of several that judge other weights or in other precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlnas.precision import stored_as
from rlnas.scale.pool import Pool, connect
from rlnas.scale.worker import Judging, SubnetWorker
from rlnas.supernet.arrays import SupernetArrays

if TYPE_CHECKING:
    from rlnas.evaluation.racing import Racing
    from rlnas.scale.cluster import Cluster
    from rlnas.supernet.modeling_subnet import SubnetModel
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Task


class Crew:
    """Workers that judge for every evaluator that has joined.

    On every node the weights lie once, in the memory that Ray's processes share: the object store. They
    are there while there are workers.

    Args:
        cluster: Where, and how many.

    Raises:
        MissingDependencyError: If Ray is not installed.
        ScaleError: If there is no cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._ray, self._cluster = connect(cluster.address), cluster
        self._sources: dict[tuple[Supernet, str], SubnetModel] = {}
        self._judgings: list[Judging] = []
        self._pool: Pool | None = None

    @property
    def n_workers(self) -> int:
        """How many there are to be."""
        return self._cluster.n_workers

    @property
    def pool(self) -> Pool:
        """The workers; they are started when there is work."""
        if self._pool is None:
            needs, put = self._cluster.needs, self._ray.put
            weights = [
                put(SupernetArrays.of(model, supernet.tokenizer, supernet.max_seq_len))
                for (supernet, _), model in self._sources.items()
            ]
            device = "cuda" if needs.n_gpus else "cpu"
            arguments = (device, needs.n_cpus, put(self._judgings), *weights)
            self._pool = Pool(self._ray, SubnetWorker, arguments, self.n_workers, needs)
        return self._pool

    def join(
        self, supernet: Supernet, model: SubnetModel, task: Task, precision: str, racing: Racing | None
    ) -> int:
        """Judge for one more evaluator.

        Args:
            supernet: Whose subnets.
            model: Its model in the number format of the precision, which is not changed any more.
            task: Its search split is judged on.
            precision: As in `SupernetEvaluator`, not ``"auto"``.
            racing: As in `SupernetEvaluator`.

        Returns:
            The number by which workers know this evaluator.
        """
        self.close()
        source = (supernet, stored_as(precision))
        self._sources.setdefault(source, model)
        self._judgings.append(Judging(list(self._sources).index(source), task, precision, racing))
        return len(self._judgings) - 1

    def close(self) -> None:
        """End the workers, and let go of the weights on all nodes; work after that starts anew."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

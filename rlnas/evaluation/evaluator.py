"""The evaluator of the main job: subnets of one supernet on the search split of one task."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlnas.errors import EvaluationError
from rlnas.evaluation.blocks import PackedBlocks
from rlnas.evaluation.champions import ChampionBook
from rlnas.evaluation.cost import EvaluationCost
from rlnas.evaluation.packing import pack_items
from rlnas.evaluation.prefix import Walk, block_sizes, tree_of
from rlnas.evaluation.racing import Race
from rlnas.metrics import Metrics
from rlnas.precision import INT8_BLOCKS, PRECISIONS, stored_as
from rlnas.scores import score, wilson_interval
from rlnas.supernet.optimisation import gains_from_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from rlnas.evaluation.packing import Pack
    from rlnas.evaluation.prefix import Node, Sizes
    from rlnas.evaluation.racing import Racing
    from rlnas.protocols import LatencyModel
    from rlnas.space import SubnetConfig
    from rlnas.supernet.supernet import Supernet
    from rlnas.task import Split, Task
    from rlnas.trial import Trial

CPU_PACK_TOKENS = 1024
"""Hidden states and activations of so many tokens stay in the caches of a core."""

CUDA_PACK_TOKENS = 16384
"""Rows of a matrix product that keep a large GPU busy; fewer are filled up with other subnets."""

BREADTH_BYTES = 2**31
"""Hidden states that a level of a breadth-first walk may hold; larger batches are parted."""

LIBRARY_BYTES = 2**27
"""What allocators and libraries keep beside, whatever the number of items: 71 to 98 MB were seen."""


class SupernetEvaluator:
    """Accuracy on a split with the inherited weights, latency from a model of it.

    The weights are copied once (see `copies`), in the number format of the evaluation; later changes
    to the supernet do not show. Subnets are evaluated by slices, on items without padding, and those that
    begin alike share the work of their common beginning. Without racing, a config's result does not
    depend on its batch, bit for bit on one machine and number of threads.

    Args:
        supernet: The shared weights.
        task: Its search split is judged on.
        latency: Predicts the latency of configs.
        split: Another split than the task's search split.
        precision: ``"auto"`` takes bfloat16 where the device gains from it; or one of
            `rlnas.precision.PRECISIONS`, for all configs alike. Those that begin with int8 are computed as
            ONNX Runtime would with texts that come one by one, see `rlnas.evaluation.int8`.
        racing: Lets subnets that cannot win leave before they have seen all items; None (the default)
            shows all items to all. For rewards that grow with accuracy and fall with latency, and
            for the metric accuracy only, since a race is decided item by item.
        pack_tokens: Tokens of one forward pass at most, which bounds the memory; None takes what
            suits the device.
        group_tokens: Tokens of one matrix product, to which several subnets are put together where a
            pack alone has fewer; None takes what suits the device: 0, no groups, on a CPU.
        copies: Whether the weights are copied; without, they are taken as they are, and the supernet's
            model gets the number format of the evaluation.

    Raises:
        ValueError: If the precision is unknown, a number is out of range, the task has folds and no split
            is given, or its metric cannot be raced.
    """

    def __init__(
        self,
        supernet: Supernet,
        task: Task,
        latency: LatencyModel,
        *,
        split: Split | None = None,
        precision: str = "auto",
        racing: Racing | None = None,
        pack_tokens: int | None = None,
        group_tokens: int | None = None,
        copies: bool = True,
    ) -> None:
        self._supernet = supernet
        self._task = task
        self._split = task.search if split is None else split
        self._latency = latency
        device, is_cuda = supernet.device, supernet.device.type == "cuda"
        if precision == "auto":
            precision = "bfloat16" if gains_from_bfloat16(device) else "float32"
        if precision not in PRECISIONS:
            raise ValueError(
                f"precision must be auto or one of {', '.join(PRECISIONS)}, but got precision={precision!r}"
            )
        if split is None and task.folds is not None:
            raise ValueError(
                f"the task {task.name!r} has {task.n_folds} folds, so it is searched on what it trains on; "
                "judge with FoldedEvaluator, or give a split"
            )
        if racing is not None and task.metric != "accuracy":
            raise ValueError(
                f"racing compares subnets item by item, so it needs metric='accuracy', but the task has "
                f"metric={task.metric!r}; evaluate without racing"
            )
        if pack_tokens is None:
            pack_tokens = CUDA_PACK_TOKENS if is_cuda else CPU_PACK_TOKENS
        if not isinstance(pack_tokens, int) or pack_tokens < 1:
            raise ValueError(
                f"pack_tokens must be an integer of at least 1, but got pack_tokens={pack_tokens}"
            )
        if group_tokens is not None and group_tokens < 0:
            raise ValueError(f"group_tokens must be at least 0, but got group_tokens={group_tokens}")
        if device.type == "cpu":
            _keep_freed_memory()
        self.precision = precision
        self.racing = racing
        model = copy.deepcopy(supernet.model) if copies else supernet.model
        self._model = model.to(getattr(torch, stored_as(precision))).eval()
        self._blocks = PackedBlocks(self._model, INT8_BLOCKS.get(precision, ()))
        self._pack_tokens = pack_tokens
        self._group_tokens = (CUDA_PACK_TOKENS if is_cuda else 0) if group_tokens is None else group_tokens
        self._encoded = supernet.encode(self._split)
        self._packs = self._pack(np.arange(len(self._split)))
        self._champions = ChampionBook(len(self._split))
        self._cost = EvaluationCost()

    @property
    def latency(self) -> LatencyModel:
        """Predicts the latencies that the metrics hold."""
        return self._latency

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Importance of attention and FFN of each layer in turn, shape ``(2 * layers,)``, or None."""
        blocks = self._supernet.block_importance
        return None if blocks is None else blocks.reshape(-1)

    @property
    def kept_importance(self) -> Callable[[Sequence[SubnetConfig]], Sequence[float]] | None:
        """Says how much of the importance of heads and units configs keep; None where it is not known."""
        importance = self._supernet.importance
        return None if importance is None else importance.kept

    @property
    def cost(self) -> EvaluationCost:
        """Everything that was evaluated so far."""
        return self._cost

    @property
    def padding_share(self) -> float:
        """Tokens of the packs that belong to no item, over all: 0, as items are laid end to end.

        What groups of subnets are filled up with is not here but in ``cost.filler_flops``.
        """
        computed = sum(pack.layout.n_tokens for pack in self._packs)
        return 1.0 - int(self._encoded.lengths.sum()) / computed if computed else 0.0

    @property
    def traversal(self) -> str:
        """How subnets that begin alike share their work here, in words."""
        way = "depth first"
        if self._goes_in_breadth:
            way = f"breadth first, products of up to {self._group_tokens:,} tokens"
        return f"{way}, packs of up to {self._pack_tokens:,} tokens"

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Judge configs.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        if self.racing is not None:
            return self._race(configs, self.racing)
        predictions = self.predict(configs)
        latencies = self._latency(configs)
        return [
            self._metrics(config, predicted, float(latency_ms))
            for config, predicted, latency_ms in zip(configs, predictions, latencies, strict=True)
        ]

    def close(self) -> None:
        """Let go of what works for this evaluator elsewhere, which is nothing here."""

    def recall(self, trials: Sequence[Trial]) -> None:
        """Take up trials that were judged in an earlier process, so that races go on as they would have."""
        self._champions.recall(trials)

    def predict(self, configs: Sequence[SubnetConfig]) -> list[npt.NDArray[np.generic]]:
        """Predictions of each config for all items, each of shape ``(n_items,)``: classes or values.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet.
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        self._check(configs)
        predictions = self.answers(configs, np.arange(len(self._split)))
        self._count(configs)
        return list(predictions)

    def answers(
        self, configs: Sequence[SubnetConfig], items: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.generic]:
        """Predictions of each config for some of the items, in their order: ``(n_configs, len(items))``.

        What a race asks chunk by chunk: the configs are not checked, and do not count as judged.

        Raises:
            EvaluationError: If predictions are not finite; `config` is the culprit.
        """
        everything = len(items) == len(self._split)
        return self._predict(configs, self._packs if everything else self._pack(items), items)

    def logits(self, configs: Sequence[SubnetConfig]) -> npt.NDArray[np.float32]:
        """Answers of each config for all items, shape ``(n_configs, n_items, num_labels)``.

        Raises:
            InvalidSubnetError: If a config does not fit the supernet.
        """
        self._check(configs)
        shape = (len(configs), len(self._split), self._n_outputs)
        table = torch.empty(shape, device=self._model.device)
        with torch.inference_mode():
            for members, pack, logits in self._answers(configs, self._packs):
                table[members[:, None], pack.indices] = logits.float()
        self._count(configs)
        answers: npt.NDArray[np.float32] = table.cpu().numpy()
        return answers

    def memory_bound(self, configs: Sequence[SubnetConfig]) -> int:
        """Bytes that judging these configs takes at most, on the device, beside the weights.

        Tokens and predictions of all items; hidden states of as many packs as there are nodes side by
        side on a way through the tree, or of a level of it; temporary values of one block; in a race
        the pairs of subnets and their answers to a chunk; and what libraries and the allocator keep
        for themselves.
        """
        shape, itemsize = self._supernet.shape, self._model.dtype.itemsize
        paths = [block_sizes(config) for config in configs]
        n_items, n_tokens = len(self._split), int(self._encoded.lengths.sum())
        rows = max((pack.layout.n_tokens for pack in self._packs), default=0)
        level = 0
        if self._goes_in_breadth:
            rows, level = max(rows, self._group_tokens), BREADTH_BYTES
        siblings = sum(len(set(sizes)) for sizes in zip(*paths, strict=True))
        hidden = (siblings + 4) * shape.hidden_size * rows * itemsize
        temporary = max(5 * shape.hidden_size, 3 * shape.intermediate_size) * rows * itemsize
        table = 3 * len(configs) * n_items * self._prediction_dtype.itemsize
        tokens = n_tokens * 16 + n_items * 64
        race = 0
        if self.racing is not None:
            n_compared = len(configs) + len(self._champions)
            n_chunk = len(self.racing.chunks(n_items, 0)[0]) if n_items else 0
            race = n_compared * (64 * n_compared + 48 * n_chunk + 2 * n_items)
        return int(hidden + level + temporary + table + tokens + race + LIBRARY_BYTES)

    def _check(self, configs: Sequence[SubnetConfig]) -> None:
        for config in configs:
            self._supernet.check(config)

    def _count(self, configs: Sequence[SubnetConfig]) -> None:
        """Enter judged configs into the books, with what masks take: all of the model on all items."""
        full = list(enumerate(block_sizes(self._supernet.shape.full)))
        flops = sum(self._blocks.flops(depth, size, p.layout) for p in self._packs for depth, size in full)
        n_configs = len(configs)
        self._cost += EvaluationCost(n_configs=n_configs, masked_flops=n_configs * flops)

    @property
    def _goes_in_breadth(self) -> bool:
        """Whether any pack is too small by itself; the chunks of a race may be where the split is not."""
        is_small = self.racing is not None or any(self._group(pack) > 1 for pack in self._packs)
        return self._group_tokens > 0 and is_small

    @property
    def _n_outputs(self) -> int:
        return int(self._model.config.num_labels or 0)

    @property
    def _prediction_dtype(self) -> torch.dtype:
        """The smallest numbers that hold all predictions, and -1 or NaN."""
        if self._task.is_regression:
            return torch.float32
        return torch.int8 if self._n_outputs <= 128 else torch.int32

    def _pack(self, items: npt.NDArray[np.int64]) -> list[Pack]:
        return pack_items(self._encoded, items, self._pack_tokens, self._model.device)

    def _group(self, pack: Pack) -> int:
        """Subnets of one matrix product; by the pack alone, so that batches do not matter."""
        return max(1, self._group_tokens // pack.layout.n_tokens)

    def _predict(
        self,
        configs: Sequence[SubnetConfig],
        packs: Sequence[Pack],
        items: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.generic]:
        """Predictions for the items of the packs, in the order of `items`: ``(n_configs, len(items))``."""
        device, dtype = self._model.device, self._prediction_dtype
        column = torch.empty(len(self._split), dtype=torch.int64, device=device)
        column[torch.from_numpy(items).to(device)] = torch.arange(len(items), device=device)
        table = torch.empty((len(configs), len(items)), dtype=dtype, device=device)
        with torch.inference_mode():
            for members, pack, logits in self._answers(configs, packs):
                table[members[:, None], column[pack.indices]] = _to_predictions(logits).to(dtype)
        predictions: npt.NDArray[np.generic] = table.cpu().numpy()
        bad = np.isnan(predictions) if self._task.is_regression else predictions == -1
        if bad.any():
            config = configs[int(np.argmax(bad.any(axis=1)))]
            raise EvaluationError(f"the subnet {config} predicts values that are not finite", config)
        return predictions

    def _answers(
        self, configs: Sequence[SubnetConfig], packs: Sequence[Pack]
    ) -> Iterator[tuple[Tensor, Pack, Tensor]]:
        """Which configs, which items, and their logits of shape ``(n_items, num_labels)``."""
        paths = [block_sizes(config) for config in configs]
        for pack in packs:
            walk = Walk(self._blocks, pack.layout)
            embedded = self._blocks.embed(pack)
            for root in self._trees(paths, pack):
                for node, hidden in self._leaves(walk, root, embedded, pack):
                    members = torch.tensor(node.members, device=hidden.device)
                    yield members, pack, self._blocks.logits(hidden, pack.layout)
            self._cost += EvaluationCost(
                n_items=len(configs) * len(pack.indices),
                n_tokens=len(configs) * pack.layout.n_tokens,
                flops=walk.flops,
                filler_flops=walk.filler_flops,
            )

    def _trees(self, paths: Sequence[Sizes], pack: Pack) -> Iterator[Node]:
        """One tree for all subnets, or several where a level of it would be too large."""
        order, part = sorted(range(len(paths)), key=paths.__getitem__), max(1, len(paths))
        if self._group(pack) > 1:
            hidden = pack.layout.n_tokens * self._supernet.shape.hidden_size * self._model.dtype.itemsize
            # A level and the one before, and as much again for what was filled up or is held as a view.
            part = max(1, BREADTH_BYTES // (4 * hidden))
        for start in range(0, len(order), part):
            yield tree_of(paths, sorted(order[start : start + part]))

    def _leaves(self, walk: Walk, root: Node, hidden: Tensor, pack: Pack) -> Iterator[tuple[Node, Tensor]]:
        group = self._group(pack)
        return walk.depth_first(root, hidden) if group == 1 else walk.breadth_first(root, hidden, group)

    def _race(self, configs: Sequence[SubnetConfig], racing: Racing) -> list[Metrics]:
        self._check(configs)
        latencies = np.array([float(latency_ms) for latency_ms in self._latency(configs)])
        n_items, labels = len(self._split), self._split.labels
        race = Race(racing, latencies, self._champions.champions, n_items)
        correct = np.zeros((len(configs), n_items), dtype=bool)
        n_seen = np.zeros(len(configs), dtype=np.int64)
        for items in racing.chunks(n_items, self._champions.n_judged):
            rows = race.alive
            if not len(rows):  # all lost to champions
                break
            predicted = self.answers([configs[row] for row in rows], items)
            correct[np.ix_(rows, items)] = predicted == labels[items]
            n_seen[rows] += len(items)
            race.enter(items, correct[np.ix_(rows, items)])
        judged = [
            self._accuracy(config, row, int(n), latency_ms)
            for config, row, n, latency_ms in zip(configs, correct, n_seen, latencies, strict=True)
        ]
        self._champions.note(judged)
        self._count(configs)
        return judged

    def _metrics(
        self, config: SubnetConfig, predicted: npt.NDArray[np.generic], latency_ms: float
    ) -> Metrics:
        metric, labels = self._task.metric, self._split.labels
        if metric == "accuracy":
            return self._accuracy(config, predicted == labels, len(labels), latency_ms)
        # No interval: a bootstrap would cost as much as the evaluation itself.
        return Metrics(
            accuracy=score(metric, labels, predicted),
            latency_ms=latency_ms,
            n_params=self._supernet.n_params(config),
            n_items=len(labels),
        )

    def _accuracy(
        self,
        config: SubnetConfig,
        correct: npt.NDArray[np.bool_],
        n_seen: int,
        latency_ms: float,
    ) -> Metrics:
        """Of answers to all items, False where an item was not seen."""
        raced_out = n_seen < len(self._split)
        n_right = int(correct.sum())
        return Metrics(
            accuracy=n_right / n_seen,
            latency_ms=latency_ms,
            n_params=self._supernet.n_params(config),
            n_items=n_seen,
            accuracy_ci=wilson_interval(n_right, n_seen),
            raced_out=raced_out,
            correct=None if raced_out else np.packbits(correct).tobytes(),
        )


def _keep_freed_memory() -> None:
    """Let the C library keep freed blocks of up to 32 MiB for the next ones of their size.

    glibc gives large blocks back to the system and takes them anew, page by page, around every matrix
    product: a seventh of the time was spent so. It stops for sizes that it has once seen freed
    (M_MMAP_THRESHOLD in mallopt(3)), and 32 MiB is the largest that counts. Elsewhere this does nothing.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)  # freed at once


def _to_predictions(logits: Tensor) -> Tensor:
    """Class indices or values, shape ``(n_items,)``; -1 or NaN where a logit is not finite.

    The largest of classes would hide a NaN, and asking here would make a GPU wait.
    """
    if logits.shape[1] == 1:
        return torch.where(torch.isfinite(logits[:, 0]), logits[:, 0].float(), torch.nan)
    return torch.where(torch.isfinite(logits).all(dim=1), logits.argmax(dim=1), -1)

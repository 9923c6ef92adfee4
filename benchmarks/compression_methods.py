"""The compression benchmark's methods: each makes models of at most a given latency out of one full model.

All of them begin with the same fine-tuned full model, and what is trained is trained alike: distilled from
the full model for the same number of passes. They differ in what they keep.

References:
    W. Kwon et al. A fast post-training pruning framework for transformers. NeurIPS 2022.
    G. Fang et al. DepGraph: towards any structural pruning. CVPR 2023 (Torch-Pruning).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from benchmarks.compression_study import STEPS
from benchmarks.torch_pruning_rival import graded, prune
from rlnas import LayerwiseSpace
from rlnas.additive import AdditiveModel
from rlnas.controllers.knapsack import KnownSums
from rlnas.deploy.certificate import TARGET_TOLERANCE
from rlnas.deploy.loading import load
from rlnas.report import read_summary
from rlnas.scores import score
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import SubnetFinisher, SubnetRepairer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.compression_study import Study
    from rlnas.space import ModelShape
    from rlnas.supernet.modeling_subnet import SubnetModel

MARGIN = 1.02
"""How far above its bound a model may be measured."""

MAX_TRIES = 4

DROPPED = LayerConfig(0, 0)


class Method(Protocol):
    """A way to compress."""

    def __call__(self, study: Study, bound: float, /) -> tuple[SubnetConfig, SubnetModel]:
        """What it keeps at no more than a share of the full model's latency, before any training."""


def bound_of(study: Study, target: float) -> float:
    """The latency ratio that all methods of a cell keep to.

    That of the first layers of the full model, where so many come close below the target: they cannot be
    any slower than that, so nobody else may. To two digits, as it is measured anew for every cache.
    """
    ratios = [
        study.stopwatch.measure(first_layers(study.supernet.shape, k))["ratio"] for k in depths(study)
    ]
    below = [ratio for ratio in ratios if ratio <= TARGET_TOLERANCE * target]
    return round(max(below), 2) if below and max(below) >= 0.9 * target else target


def depths(study: Study) -> range:
    """How many layers truncation may keep."""
    return range(1, study.supernet.shape.num_hidden_layers)


def first_layers(shape: ModelShape, k: int) -> SubnetConfig:
    """The first k layers, whole."""
    full = shape.full.layers
    return SubnetConfig((*full[:k], *(DROPPED,) * (len(full) - k)))


def truncation(study: Study, bound: float) -> tuple[SubnetConfig, SubnetModel]:
    """As many of the first layers as the latency allows."""
    shape = study.supernet.shape
    configs = [first_layers(shape, k) for k in depths(study)]
    fitting = [c for c in configs if study.stopwatch.measure(c)["ratio"] <= MARGIN * bound]
    chosen = fitting[-1] if fitting else configs[0]
    return chosen, study.supernet.extract(chosen)


def uniform(study: Study, bound: float) -> tuple[SubnetConfig, SubnetModel]:
    """The same share of heads and units in every layer, the most important ones of each."""
    shape = study.supernet.shape

    def thinned(share: float) -> SubnetConfig:
        sizes = (shape.num_attention_heads, shape.intermediate_size)
        layer = LayerConfig(*(max(1, round(size * round(share * STEPS) / STEPS)) for size in sizes))
        return SubnetConfig((layer,) * shape.num_hidden_layers)

    candidates = [thinned(k / STEPS) for k in range(1, STEPS + 1)]

    def propose(allowed: float) -> SubnetConfig:
        ratios = predicted(study, candidates)
        fitting = [c for c, ratio in zip(candidates, ratios, strict=True) if ratio <= allowed]
        return fitting[-1] if fitting else candidates[0]

    chosen = settle(study, bound, propose)
    return chosen, study.supernet.extract(chosen)


def knapsack(study: Study, bound: float) -> tuple[SubnetConfig, SubnetModel]:
    """Kwon et al. done right: most Fisher information under the corrected table, exactly; repaired."""
    supernet, importance = study.supernet, study.supernet.importance
    if importance is None:
        raise RuntimeError("the supernet of a study is in order, so its importance is known")
    space = LayerwiseSpace.for_model(supernet.shape, parts=STEPS)
    sums = KnownSums(AdditiveModel.probe(space, importance.kept), AdditiveModel.probe(space, study.latency))
    frontier = sums.frontier()
    full_ms = float(study.latency([supernet.shape.full])[0])

    def propose(allowed: float) -> SubnetConfig:
        index = frontier.best(allowed * full_ms)
        return space.smallest() if index is None else space.decode(frontier.actions[index].tolist())

    chosen = settle(study, bound, propose)
    return chosen, repaired(study, chosen)


def torch_pruning(study: Study, bound: float) -> tuple[SubnetConfig, SubnetModel]:
    """Torch-Pruning's Taylor importance of groups, global over heads and over FFN units."""
    made: dict[SubnetConfig, SubnetModel] = {}
    full = graded(study)

    def propose(allowed: float) -> SubnetConfig:
        low, high = 0.0, 0.95
        for _ in range(5):
            middle = (low + high) / 2
            config, model = prune(study, full, middle)
            made[config] = model
            low, high = (low, middle) if _interpolated(study, config) <= allowed else (middle, high)
        config, model = prune(study, full, high)
        made[config] = model
        return config

    chosen = settle(study, bound, propose)
    return chosen, made[chosen]


def searched(study: Study, bound: float, bounds: Sequence[float]) -> tuple[SubnetConfig, SubnetModel]:
    """What `rlnas search` delivers without training: one search serves the bounds of all targets."""
    run = study.search(bounds)
    models = read_summary(run)["targets"]
    model = min(models, key=lambda one: abs(one["target_ratio"] - bound))
    config = SubnetConfig.from_dict(model["best"]["config"])
    return config, delivered(run / model["folder"], study.device)


def delivered(folder: Path, device: str) -> SubnetModel:
    """The model in a folder that a run has written."""
    module: Any = load(folder, False, is_judged=True).module
    model: SubnetModel = module.to(device)
    return model


def repaired(study: Study, config: SubnetConfig) -> SubnetModel:
    """A subnet fitted to the full model by least squares."""
    subnet = study.supernet.extract(config)
    SubnetRepairer(seed=study.seed).repair(subnet, study.supernet, study.task.train)
    return subnet


def finished(study: Study, subnet: SubnetModel, epochs: int) -> None:
    """Train a model in place, as all methods do; the search split chooses among its weights."""
    task = study.task
    SubnetFinisher(study.optimisation(epochs), patience=epochs).finish(
        subnet,
        study.supernet,
        task.train,
        validation=task.search,
        metric=functools.partial(score, task.metric),
        progress=False,
    )


def predicted(study: Study, configs: Sequence[SubnetConfig]) -> list[float]:
    """Latencies by the table, over the full model's."""
    full, *others = study.latency([study.supernet.shape.full, *configs]).tolist()
    return [ms / full for ms in others]


def _interpolated(study: Study, config: SubnetConfig) -> float:
    """Latency of any sizes over the full model's, between those of the table."""
    table = study.latency
    attention, ffn = (
        (np.array([0, *by_size]), np.array([0.0, *by_size.values()]))
        for by_size in (table.attention_ms, table.ffn_ms)
    )

    def total(one: SubnetConfig) -> float:
        heads = [layer.num_attention_heads for layer in one.layers]
        units = [layer.intermediate_size for layer in one.layers]
        return float(table.floor_ms + np.interp(heads, *attention).sum() + np.interp(units, *ffn).sum())

    return total(config) / total(study.supernet.shape.full)


def settle(study: Study, bound: float, propose: Callable[[float], SubnetConfig]) -> SubnetConfig:
    """What a method proposes, held to its bound by the stopwatch; predictions are a little off."""
    allowed, chosen = bound, propose(bound)
    for _ in range(MAX_TRIES):
        ratio = study.stopwatch.measure(chosen)["ratio"]
        if ratio <= MARGIN * bound:
            break
        allowed *= bound / ratio
        following = propose(allowed)
        if following == chosen:
            allowed *= 0.98
            following = propose(allowed)
        chosen = following
    return chosen

"""A space too large for a table: accuracies by a formula that was fitted to a smaller, real one.

**Synthetic**: no model of this space was ever judged. It shows how methods fare in a space that nobody
can enumerate, and nothing about any model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlnas.errors import DataError, RLNASError, RunFolderError
from rlnas.metrics import Metrics
from rlnas.space import LayerOptions, LayerwiseSpace
from rlnas.tabular.bench import BenchLatency
from rlnas.tabular.store import model_from_dict, model_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.additive import AdditiveModel
    from rlnas.space import SubnetConfig

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

FORMAT = "rlnas-bench synthetic 1"


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Accuracy of a subnet by a formula, without noise.

    The logit is a sum over layers, neighbours, pairs of layers and depth. Of every layer counts which
    heads and units it keeps, its size as a share of the full layer, and how much of it is dropped (one
    block of two is a half).

    Attributes:
        base: Logit of the model without blocks.
        main: Shape ``(n_layers, n_heads, n_units)``: worth of each option of each layer.
        sizes: Shape ``(n_heads, n_units)``, in [0, 1].
        dropped: Shape ``(n_heads, n_units)``, in [0, 1].
        neighbour_sizes: Shape ``(n_layers - 1,)``: worth of the product of two neighbours' sizes.
        neighbour_dropped: Shape ``(n_layers - 1,)``: worth of dropping two neighbours.
        pairs: Shape ``(n_layers, n_layers)``, upper triangle: worth of the product of two sizes.
        depth: Shape ``(2,)``: worth of the square and the cube of the share that is dropped.
    """

    base: float
    main: FloatArray
    sizes: FloatArray
    dropped: FloatArray
    neighbour_sizes: FloatArray
    neighbour_dropped: FloatArray
    pairs: FloatArray
    depth: FloatArray

    def __post_init__(self) -> None:
        n_layers, n_heads, n_units = self.main.shape
        shapes = {
            "sizes": (n_heads, n_units),
            "dropped": (n_heads, n_units),
            "neighbour_sizes": (n_layers - 1,),
            "neighbour_dropped": (n_layers - 1,),
            "pairs": (n_layers, n_layers),
            "depth": (2,),
        }
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{name} must have shape {shape}, but got {found}")

    def accuracy(self, actions: IntArray) -> FloatArray:
        """Accuracy of each action, in (0, 1).

        Args:
            actions: Shape ``(k, 2 * n_layers)``: heads and units of each layer in turn.

        Returns:
            Shape ``(k,)``.
        """
        heads, units = actions[:, ::2], actions[:, 1::2]
        sizes, dropped = self.sizes[heads, units], self.dropped[heads, units]
        share = dropped.mean(axis=1)
        logit = (
            self.base
            + self.main[np.arange(self.main.shape[0]), heads, units].sum(axis=1)
            + (sizes[:, :-1] * sizes[:, 1:]) @ self.neighbour_sizes
            + (dropped[:, :-1] * dropped[:, 1:]) @ self.neighbour_dropped
            + ((sizes @ self.pairs) * sizes).sum(axis=1)
            + self.depth[0] * share**2
            + self.depth[1] * share**3
        )
        accuracies: FloatArray = 1 / (1 + np.exp(-logit))
        return accuracies


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticBench:
    """A synthetic task on a space that cannot be enumerated.

    Attributes:
        name: The task; says that it is synthetic.
        space: Heads and units of each layer, chosen apart.
        surface: Accuracy without noise.
        n_items: Items that an evaluation is as noisy as.
        noise_share: Part of the binomial variance that tells subnets apart, in [0, 1]: that of a real
            table is below 1, as all its subnets answer the same items.
        chance: Accuracy of guessing.
        kept: Importance that a subnet keeps.
        n_params: Parameters of a subnet.
        latency: The latency; its note says where it comes from.
        best_known: Actions of the best subnets that a long search with the noise-free truth found, at
            several latencies.
        recipe: How the surface was fitted, plain values.
    """

    name: str
    space: LayerwiseSpace
    surface: Surface = field(repr=False)
    n_items: int
    noise_share: float
    chance: float
    kept: AdditiveModel = field(repr=False)
    n_params: AdditiveModel = field(repr=False)
    latency: BenchLatency = field(repr=False)
    best_known: IntArray = field(repr=False)
    recipe: dict[str, Any] = field(repr=False)

    def accuracy(self, configs: Sequence[SubnetConfig]) -> FloatArray:
        """Accuracy of each config without noise, shape ``(len(configs),)``."""
        return self.surface.accuracy(_actions(self.space, configs))

    def evaluator(self, seed: int) -> SyntheticEvaluator:
        """An evaluator with noise; the same config and seed have the same noise."""
        return SyntheticEvaluator(self, seed)


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticEvaluator:
    """Answers from a `SyntheticBench`; an `InformedEvaluator` and a `WeighingEvaluator`.

    Attributes:
        bench: The formulas.
        seed: Of the noise, at least 0.
    """

    bench: SyntheticBench
    seed: int

    @property
    def latency(self) -> BenchLatency:
        """Predicts the latencies that the metrics hold."""
        return self.bench.latency

    @property
    def importance(self) -> FloatArray:
        """Importance of the block at each position, shape ``(len(space.nvec),)``."""
        return np.array([part[-1] for part in self.bench.kept.parts])

    def kept_importance(self, configs: Sequence[SubnetConfig], /) -> FloatArray:
        """Importance of what each config keeps, shape ``(len(configs),)``."""
        return self.bench.kept.predict(_actions(self.bench.space, configs))

    def __call__(self, configs: Sequence[SubnetConfig], /) -> list[Metrics]:
        """Metrics of each config, in the same order."""
        bench = self.bench
        actions = _actions(bench.space, configs)
        truths, latencies_ms = bench.surface.accuracy(actions), bench.latency.model.predict(actions)
        n_params = bench.n_params.predict(actions)
        answers = []
        for i, action in enumerate(actions.tolist()):
            draw = float(np.random.default_rng((self.seed, *action)).standard_normal())
            truth = float(truths[i])
            noise = math.sqrt(bench.noise_share * truth * (1 - truth) / bench.n_items) * draw
            n_right = min(bench.n_items, max(0, round(bench.n_items * (truth + noise))))
            answers.append(
                Metrics(
                    accuracy=n_right / bench.n_items,
                    latency_ms=latencies_ms[i],
                    n_params=round(n_params[i]),
                    n_items=bench.n_items,
                )
            )
        return answers


def save_synthetic(bench: SyntheticBench, path: Path | str) -> None:
    """Write a synthetic bench as JSON.

    Raises:
        RunFolderError: If the file cannot be written.
    """
    surface = {f.name: np.asarray(getattr(bench.surface, f.name)).tolist() for f in fields(Surface)}
    values = {
        "format": FORMAT,
        "name": bench.name,
        "layers": [[list(o.num_attention_heads), list(o.intermediate_size)] for o in bench.space.layers],
        "n_items": bench.n_items,
        "noise_share": bench.noise_share,
        "chance": bench.chance,
        "surface": surface,
        "kept": model_to_dict(bench.kept),
        "n_params": model_to_dict(bench.n_params),
        "latency": {
            "model": model_to_dict(bench.latency.model),
            "spread": bench.latency.spread,
            "note": bench.latency.note,
        },
        "best_known": bench.best_known.tolist(),
        "recipe": bench.recipe,
    }
    target = Path(path)
    try:
        target.write_text(json.dumps(values, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write the bench {target}: {error.strerror}") from error


def load_synthetic(path: Path | str) -> SyntheticBench:
    """Read what `save_synthetic` wrote.

    Raises:
        DataError: If the file is missing, damaged, or no synthetic bench.
    """
    source = Path(path)
    try:
        values = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the bench {source}: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{source} is damaged, or no synthetic bench ({error}); fetch it again") from error
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise DataError(f"{source} is no synthetic bench: it has format={found!r} and not {FORMAT!r}")
    try:
        return _parse(values)
    except KeyError as error:
        raise DataError(f"{source} is damaged: it lacks {error}; fetch it again") from error
    except (TypeError, ValueError, AttributeError, IndexError, RLNASError) as error:
        raise DataError(f"{source} is damaged ({error}); fetch it again") from error


def _parse(values: dict[str, Any]) -> SyntheticBench:
    layers = tuple(LayerOptions(tuple(heads), tuple(units)) for heads, units in values["layers"])
    space = LayerwiseSpace(layers)
    stored = values["surface"]
    arrays = {
        f.name: np.array(stored[f.name], dtype=np.float64) for f in fields(Surface) if f.name != "base"
    }
    surface = Surface(float(stored["base"]), **arrays)
    if surface.main.shape != (len(layers), space.nvec[0], space.nvec[1]):
        raise ValueError(f"main has shape {surface.main.shape}, which is not that of the layers")
    latency = values["latency"]
    return SyntheticBench(
        name=str(values["name"]),
        space=space,
        surface=surface,
        n_items=int(values["n_items"]),
        noise_share=float(values["noise_share"]),
        chance=float(values["chance"]),
        kept=model_from_dict(values["kept"], space.nvec),
        n_params=model_from_dict(values["n_params"], space.nvec),
        latency=BenchLatency(
            space,
            model_from_dict(latency["model"], space.nvec),
            float(latency["spread"]),
            str(latency["note"]),
        ),
        best_known=np.array(values["best_known"], dtype=np.int64).reshape(-1, len(space.nvec)),
        recipe=dict(values["recipe"]),
    )


def _actions(space: LayerwiseSpace, configs: Sequence[SubnetConfig]) -> IntArray:
    actions = [space.encode(config) for config in configs]
    return np.array(actions, dtype=np.int64).reshape(-1, len(space.nvec))

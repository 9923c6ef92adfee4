"""Make the 12-layer space of rlnas-bench, which is synthetic: no model of it was ever judged.

A formula for the logit of accuracy is fitted to a real table of 6 layers, and read between these layers
for 12 of them; heads and units, which the table chooses together, are parted. What is stored are its
coefficients, and the best subnets that a long search with the noise-free formula finds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.pack_bench import CONSTANT_SHARE, DATA
from rlnas.additive import AdditiveModel
from rlnas.controllers.knapsack import solve_knapsack
from rlnas.latency import LatencyTable
from rlnas.latency.correction import count_flops
from rlnas.space import LayerwiseSpace, ModelShape
from rlnas.tabular import BenchLatency, SyntheticBench, TabularBench, load_bench, save_synthetic
from rlnas.tabular.synthetic import Surface
from rlnas.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from rlnas.space import SubnetConfig

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

SUFFIX = ".synthetic.json"
SHAPE = ModelShape(12, 12, 3072, 768)
"""Sizes of BERT base."""
WORKLOAD = Workload(1, 32)
TABLE = f"latency-bert-base-{WORKLOAD.batch_size}x{WORKLOAD.seq_len}-{WORKLOAD.dtype}.json"
N_ITEMS = 1000
RIDGE = 1.0
RATIOS = tuple(round(0.05 * step, 2) for step in range(2, 21))
"""Latencies, relative to the full model's, at which the best subnet is looked for."""
PARAMS_OUTSIDE = 23_837_184 + 768 * 769
"""Of BERT base, the embeddings and the pooler."""


def main() -> None:
    """Fit, search, write, and say how well the formula fits the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--table", type=Path, default=DATA / "sst2.rlnasbench", help="what it is fitted to")
    parser.add_argument("--out", type=Path, default=DATA, help="folder of the file")
    parser.add_argument("--restarts", type=int, default=16, help="random starts of the search, per latency")
    options = parser.parse_args()
    table = load_bench(options.table)
    bench, fit = make_synthetic(table, options.out, options.restarts)
    path = options.out / f"{bench.name}{SUFFIX}"
    save_synthetic(bench, path)
    print(json.dumps({"bytes": path.stat().st_size, **fit}))


def make_synthetic(
    table: TabularBench, tables: Path, restarts: int
) -> tuple[SyntheticBench, dict[str, float]]:
    """A synthetic bench, and how well its formula fits the table that it comes from.

    Args:
        table: Of 6 layers, whose options are two sizes of heads and of units, and dropping all.
        tables: Folder that may hold a measured latency table of BERT base.
        restarts: Random starts of the search for the best subnets.
    """
    coefficients, fit = fit_table(table)
    space = LayerwiseSpace.for_model(SHAPE)
    surface = stretch(coefficients, table)
    latency = _latency(space, tables / TABLE)
    best = best_subnets(surface, latency, restarts)
    bench = SyntheticBench(
        name=f"synthetic12-{table.name}",
        space=space,
        surface=surface,
        n_items=N_ITEMS,
        noise_share=min(1.0, noise_share(table)),
        chance=table.chance,
        kept=_kept(table),
        n_params=AdditiveModel.probe(space, lambda configs: [_n_params(config) for config in configs]),
        latency=latency,
        best_known=best,
        recipe={"synthetic": True, "fitted to": table.name, **fit},
    )
    accuracies = surface.accuracy(best)
    fit |= {"full_accuracy": float(accuracies[-1]), "table_full_accuracy": float(table.accuracy()[-1])}
    return bench, fit


def _columns(table: TabularBench) -> tuple[FloatArray, FloatArray]:
    """Size, as a share of a full layer, and whether dropped, of each layer of each subnet."""
    full = table.shape
    shares = np.array(
        [
            (
                o.num_attention_heads / full.num_attention_heads
                + 2 * o.intermediate_size / full.intermediate_size
            )
            / 3
            for o in table.space.options
        ]
    )
    actions = table.actions
    return shares[actions], (actions == 0).astype(np.float64)


def _features(table: TabularBench) -> FloatArray:
    """What the logit is a sum of, a row a subnet; see `Surface`."""
    sizes, dropped = _columns(table)
    n_layers, n_options = len(table.space.nvec), table.space.nvec[0]
    main = (table.actions[:, :, None] == np.arange(1, n_options)).reshape(len(sizes), -1)
    first, second = np.triu_indices(n_layers, 1)
    share = dropped.mean(axis=1)
    blocks = [main, sizes[:, :-1] * sizes[:, 1:], dropped[:, :-1] * dropped[:, 1:]]
    blocks += [sizes[:, first] * sizes[:, second], np.stack([share**2, share**3], axis=1)]
    return np.concatenate(blocks, axis=1).astype(np.float64)


def fit_table(table: TabularBench) -> tuple[dict[str, FloatArray], dict[str, float]]:
    """Coefficients by ridge regression, and how they do on a fifth of the subnets that is held out."""
    features = _features(table)
    n_right = table.accuracy() * table.n_items
    logits = np.log((n_right + 0.5) / (table.n_items - n_right + 0.5))
    held_out = np.random.default_rng(0).random(len(logits)) < 0.2
    weights = _ridge(features[~held_out], logits[~held_out])
    predicted = weights[0] + features[held_out] @ weights[1:]
    residual = logits[held_out] - predicted
    ranks = [np.argsort(np.argsort(values)) for values in (predicted, logits[held_out])]
    fit = {
        "held_out_r2": float(1 - residual.var() / logits[held_out].var()),
        "held_out_rank_correlation": float(np.corrcoef(ranks)[0, 1]),
    }
    weights = _ridge(features, logits)
    n, n_options = len(table.space.nvec), table.space.nvec[0]
    cuts = np.cumsum([1, n * (n_options - 1), n - 1, n - 1, n * (n - 1) // 2])
    names = ("base", "main", "neighbour_sizes", "neighbour_dropped", "pairs", "depth")
    return dict(zip(names, np.split(weights, cuts), strict=True)), fit


def _ridge(features: FloatArray, logits: FloatArray) -> FloatArray:
    centre = features.mean(axis=0)
    shifted = features - centre
    gram = shifted.T @ shifted + RIDGE * np.eye(features.shape[1])
    weights = np.linalg.solve(gram, shifted.T @ (logits - logits.mean()))
    return np.concatenate([[logits.mean() - centre @ weights], weights])


def stretch(coefficients: dict[str, FloatArray], table: TabularBench) -> Surface:
    """The formula of 6 layers read as one of 12.

    A layer of 12 has the coefficients between those of the two of 6 that it stands between. Sums have
    more terms then: each is scaled by their number, so that the whole model is worth as much.
    """
    n, target = len(table.space.nvec), SHAPE.num_hidden_layers
    main = _parted(table, coefficients["main"].reshape(n, -1))
    at = _places(n, target)
    middles = (at[:-1] + at[1:]) / 2 - 0.5  # neighbours of the table stand at half places
    shares = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    weight = _pair_matrix(coefficients["pairs"], n)
    read = _reading(at, n)
    return Surface(
        base=float(coefficients["base"][0]),
        main=np.einsum("tl,lhu->thu", read, main) * n / target,
        sizes=(shares[:, None] + 2 * shares[None, :]) / 3,
        dropped=np.add.outer(1.0 * (shares == 0), 1.0 * (shares == 0)) / 2,
        neighbour_sizes=_reading(middles, n - 1) @ coefficients["neighbour_sizes"] * (n - 1) / (target - 1),
        neighbour_dropped=_reading(middles, n - 1)
        @ coefficients["neighbour_dropped"]
        * (n - 1)
        / (target - 1),
        pairs=np.triu(read @ weight @ read.T, 1) * (n * (n - 1)) / (target * (target - 1)),
        depth=coefficients["depth"],
    )


def _places(n: int, target: int) -> FloatArray:
    """Where each of `target` layers stands among n, so that every one of these is read as often."""
    return (np.arange(target) + 0.5) * n / target - 0.5


def _reading(at: FloatArray, n: int) -> FloatArray:
    """Shape ``(len(at), n)``: weights that read n numbers at places between them, or at their ends."""
    return np.stack([np.interp(at, np.arange(n), row) for row in np.eye(n)], axis=1)


def _pair_matrix(pairs: FloatArray, n: int) -> FloatArray:
    """Symmetric, with the mean of its neighbours on the diagonal, which no pair has."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n, 1)] = pairs
    matrix += matrix.T
    for i in range(n):
        matrix[i, i] = np.mean([matrix[i, j] for j in (i - 1, i + 1) if 0 <= j < n])
    return matrix


def _parted(table: TabularBench, worth: FloatArray) -> FloatArray:
    """Worth of quarters of heads and of units, from that of the table's four options of both.

    The table tells what more heads, more units and both together are worth, from a third on. What the
    first third of both is worth together is shared out equally among heads and units, since the table
    cannot tell: it never drops one of them alone.

    Args:
        table: Its options are: nothing, few of both, many heads, many units, many of both.
        worth: Shape ``(n_layers, 4)``, of the options but for nothing.

    Returns:
        Shape ``(n_layers, 5, 5)``.
    """
    full = table.shape
    options = [
        (o.num_attention_heads / full.num_attention_heads, o.intermediate_size / full.intermediate_size)
        for o in table.space.options[1:]
    ]
    few_heads, few_units = options[0]
    if options != [(few_heads, few_units), (1.0, few_units), (few_heads, 1.0), (1.0, 1.0)]:
        raise ValueError(f"the table must offer two sizes of heads and of units, but it offers {options}")
    few, more_heads, more_units, both = worth.T
    heads_gain, units_gain = more_heads - few, more_units - few
    joint = both - more_heads - more_units + few
    shares = np.linspace(0, 1, 5)
    first_heads, first_units = (np.interp(shares, [0, least], [0, 1]) for least in (few_heads, few_units))
    rest_heads, rest_units = (np.interp(shares, [least, 1], [0, 1]) for least in (few_heads, few_units))
    by_heads = np.outer(few / 2, first_heads) + np.outer(heads_gain, rest_heads)
    by_units = np.outer(few / 2, first_units) + np.outer(units_gain, rest_units)
    together = joint[:, None, None] * rest_heads[None, :, None] * rest_units[None, None, :]
    parted: FloatArray = by_heads[:, :, None] + by_units[:, None, :] + together
    return parted


def _kept(table: TabularBench) -> AdditiveModel:
    """Importance of the table's layers, read between them; heads and units apart as their worth is."""
    worth = np.stack([part[1:] for part in table.kept.parts])
    parted = _parted(table, worth)
    n = len(table.space.nvec)
    layers = np.einsum("tl,lhu->thu", _reading(_places(n, SHAPE.num_hidden_layers), n), parted)
    parts = []
    for layer in layers:
        # As a sum over heads and units: each with the other block whole.
        parts += [np.maximum(0, layer[:, -1] - layer[0, -1]), np.maximum(0, layer[-1] - layer[-1, 0])]
    return AdditiveModel(0.0, tuple(np.maximum.accumulate(part) for part in parts))


def noise_share(table: TabularBench) -> float:
    """Variance of the difference of two halves over subnets, relative to independent items."""
    shares = []
    for seed in range(8):
        first, second = (table.accuracy(half) for half in table.halves(seed))
        accuracies = table.accuracy()
        independent = (accuracies * (1 - accuracies) * 4 / table.n_items).mean()
        shares.append((first - second).var() / independent)
    return float(np.mean(shares))


def _latency(space: LayerwiseSpace, file: Path) -> BenchLatency:
    """Of a measured table of BERT base if one lies there, else operations."""
    if file.is_file():
        table = LatencyTable.load(file, workload=WORKLOAD, shape=SHAPE)
        model = AdditiveModel.probe(space, table)
        return BenchLatency(space, model, 0.0, f"ms, {table.workload} on {table.device}")
    largest = count_flops(SHAPE.full, SHAPE, WORKLOAD)

    def counted(configs: Sequence[SubnetConfig]) -> list[float]:
        flops = [count_flops(config, SHAPE, WORKLOAD) / largest for config in configs]
        return [CONSTANT_SHARE + (1 - CONSTANT_SHARE) * share for share in flops]

    note = "operations are counted, not timed; full model = 1"
    return BenchLatency(space, AdditiveModel.probe(space, counted), 0.0, note)


def _n_params(config: SubnetConfig) -> int:
    hidden = SHAPE.hidden_size
    width = hidden // SHAPE.num_attention_heads
    total = PARAMS_OUTSIDE
    for layer in config.layers:
        heads, units = layer.num_attention_heads * width, layer.intermediate_size
        total += (4 * hidden * heads + 3 * heads + 3 * hidden) * (heads > 0)
        total += (2 * hidden * units + units + 3 * hidden) * (units > 0)
    return total


def best_subnets(surface: Surface, latency: BenchLatency, restarts: int) -> IntArray:
    """The best that a long search with the truth finds at each of `RATIOS`, then the full model.

    Climbs from the optimum of the first-order view by dynamic programming, from random subnets, and
    from what was best at the latency before; a step changes one position or two.

    Args:
        surface: The truth.
        latency: Additive.
        restarts: Random starts at each latency.
    """
    rng = np.random.default_rng(0)
    costs, nvec = latency.model.parts, np.array(latency.space.nvec)
    full = nvec - 1
    values = [_gains(surface, full, position, n) for position, n in enumerate(nvec)]
    full_cost = float(latency.model.predict(full[None])[0])
    found: list[IntArray] = []
    for ratio in RATIOS:
        capacity = ratio * full_cost - latency.model.base
        if capacity < 0:
            continue
        frontier = solve_knapsack(values, costs, capacity)
        starts = [np.asarray(frontier.actions[-1]), *found[-1:]]
        starts += [rng.integers(nvec) for _ in range(restarts)]
        climbed = [_climb(surface, costs, _shrunk(s, costs, capacity, rng), capacity) for s in starts]
        found.append(max(climbed, key=lambda action: float(surface.accuracy(action[None])[0])))
    return np.stack([*found, full])


def _gains(surface: Surface, full: IntArray, position: int, n_options: int) -> FloatArray:
    """What the options of a position are worth where everything else is whole, from 0 on."""
    actions = np.repeat(full[None], n_options, axis=0)
    actions[:, position] = np.arange(n_options)
    accuracies = surface.accuracy(actions)
    gains: FloatArray = accuracies - accuracies[0]
    return gains


def _cost(actions: IntArray, costs: Sequence[FloatArray]) -> FloatArray:
    return sum((part[actions[:, i]] for i, part in enumerate(costs)), np.zeros(len(actions)))


def _shrunk(
    action: IntArray, costs: Sequence[FloatArray], capacity: float, rng: np.random.Generator
) -> IntArray:
    action = action.copy()
    while _cost(action[None], costs)[0] > capacity:
        action[rng.choice(np.flatnonzero(action))] -= 1
    return action


def _climb(surface: Surface, costs: Sequence[FloatArray], action: IntArray, capacity: float) -> IntArray:
    """To where no change of one position or two is better."""
    best = float(surface.accuracy(action[None])[0])
    while True:
        neighbours = _neighbours(action, [len(part) for part in costs])
        neighbours = neighbours[_cost(neighbours, costs) <= capacity + 1e-12]
        if not len(neighbours):
            return action
        accuracies = surface.accuracy(neighbours)
        at = int(accuracies.argmax())
        if accuracies[at] <= best + 1e-12:
            return action
        action, best = neighbours[at], float(accuracies[at])


def _neighbours(action: IntArray, nvec: Sequence[int]) -> IntArray:
    """All that differ in one position or two."""
    moves = [(i, o) for i, n in enumerate(nvec) for o in range(n) if o != action[i]]
    positions, entries = np.array(moves).T
    first, second = np.triu_indices(len(moves), 1)
    apart = positions[first] != positions[second]
    first, second = first[apart], second[apart]
    singles = np.repeat(action[None], len(moves), axis=0)
    singles[np.arange(len(moves)), positions] = entries
    doubles = np.repeat(action[None], len(first), axis=0)
    doubles[np.arange(len(first)), positions[first]] = entries[first]
    doubles[np.arange(len(first)), positions[second]] = entries[second]
    return np.concatenate([singles, doubles])


if __name__ == "__main__":
    main()

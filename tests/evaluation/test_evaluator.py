from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from rlnas.errors import EvaluationError, InvalidSubnetError
from rlnas.evaluation import EvaluationCost, Racing, SupernetEvaluator, evaluator
from rlnas.evaluation.blocks import PackedBlocks
from rlnas.evaluation.packing import pack_items
from rlnas.evaluation.prefix import tree_of
from rlnas.loop import search
from rlnas.metrics import Metrics
from rlnas.protocols import InformedEvaluator, RecallingEvaluator, WeighingEvaluator
from rlnas.rewards import LinearPenalty
from rlnas.scores import score, score_interval, wilson_interval
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.encoding import sorted_batches
from rlnas.supernet.importance import Importance
from rlnas.supernet.inference import predict
from rlnas.testing import check_evaluator
from rlnas.trial import Trial

TASK = tiny.make_task(n=40)


def latency(configs):
    """Milliseconds: a tenth of the heads that are kept."""
    return [sum(layer.num_attention_heads for layer in config.layers) / 10 for config in configs]


def make_evaluator(supernet, task=TASK, **settings):
    return SupernetEvaluator(supernet, task, latency, **({"precision": "float32"} | settings))


def test_predictions_equal_those_of_the_extracted_models(supernet):
    configs = tiny.random_configs(supernet, 12)
    found = make_evaluator(supernet).predict(configs)
    encoded = supernet.encode(TASK.search)
    for config, predictions in zip(configs, found, strict=True):
        assert np.array_equal(predictions, predict(supernet.extract(config), encoded))
        assert predictions.dtype.kind == "i"
    assert len({tuple(predictions) for predictions in found}) > 3


def test_values_of_a_regression_equal_those_of_the_extracted_models(checkpoints):
    task = tiny.make_task((), n=40)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    configs = tiny.random_configs(supernet, 10)
    found = make_evaluator(supernet, task).predict(configs)
    for config, predictions in zip(configs, found, strict=True):
        expected = predict(supernet.extract(config), supernet.encode(task.search))
        np.testing.assert_allclose(predictions, expected, atol=1e-5)
        assert predictions.dtype == np.float32


def test_metrics_hold_what_their_names_say(supernet):
    configs = tiny.random_configs(supernet, 4)
    judge = make_evaluator(supernet)
    for config, metrics in zip(configs, judge(configs), strict=True):
        extracted = supernet.extract(config)
        predictions = predict(extracted, supernet.encode(TASK.search))
        assert metrics.accuracy == np.mean(predictions == TASK.search.labels)
        assert metrics.n_params == sum(parameter.numel() for parameter in extracted.parameters())
        assert metrics.n_items == 40
        assert metrics.latency_ms == latency([config])[0]
        assert metrics.accuracy_ci == score_interval("accuracy", TASK.search.labels, predictions)


def test_the_interval_is_wilsons(bert):
    (metrics,) = make_evaluator(bert)([bert.shape.full])
    p, n, z = metrics.accuracy, metrics.n_items, 1.959964
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert metrics.accuracy_ci == pytest.approx((centre - half, centre + half), abs=1e-6)


@pytest.mark.parametrize(
    ("names", "metric"),
    [
        (("a", "b"), "f1"),
        (("a", "b"), "matthews"),
        ((), "pearson"),
        ((), "spearman"),
        (tiny.LABELS, "accuracy"),
    ],
)
def test_the_accuracy_is_the_metric_of_the_task(checkpoints, names, metric):
    task = replace(tiny.make_task(names, n=40, pairs=True), metric=metric)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    judge = make_evaluator(supernet, task)
    config = tiny.random_configs(supernet, 3)[2]
    (metrics,), (predictions,) = judge([config]), judge.predict([config])
    assert metrics.accuracy == score(metric, task.search.labels, predictions)
    assert (metrics.accuracy_ci is None) == (metric != "accuracy")


class Poison:
    """Nothing may so much as look at it."""

    def __getattribute__(self, name):
        raise AssertionError(f"the final split was touched: {name}")

    def __len__(self):
        raise AssertionError("the final split was measured")


def test_the_final_split_is_never_touched(bert):
    configs = tiny.random_configs(bert, 10)
    clean = make_evaluator(bert)(configs)
    assert make_evaluator(bert, replace(TASK, final=Poison()))(configs) == clean
    garbage = replace(TASK.final, texts=("?",) * 40, labels=np.full(40, -1))
    assert make_evaluator(bert, replace(TASK, final=garbage))(configs) == clean
    other_search = replace(TASK, search=TASK.final)
    assert make_evaluator(bert, other_search)(configs) != clean


def test_another_split_is_judged_where_asked_for(bert):
    on_train = make_evaluator(bert, split=TASK.train)([bert.shape.full])
    assert on_train == make_evaluator(bert, replace(TASK, search=TASK.train))([bert.shape.full])
    assert on_train[0].n_items == len(TASK.train)


@pytest.mark.parametrize("pack_tokens", [1, 50, 100_000])
def test_the_size_of_packs_does_not_change_the_predictions(bert, pack_tokens):
    configs = tiny.random_configs(bert, 10)
    usual, other = make_evaluator(bert), make_evaluator(bert, pack_tokens=pack_tokens)
    assert np.abs(other.logits(configs) - usual.logits(configs)).max() < 1e-5
    assert np.array_equal(other.predict(configs), usual.predict(configs))


def test_later_changes_to_the_supernet_do_not_show(bert):
    judge = make_evaluator(bert)
    before = judge([bert.shape.full])
    with torch.no_grad():
        for parameter in bert.model.parameters():
            parameter.zero_()
    assert judge([bert.shape.full]) == before


def test_bfloat16_weights_answer_nearly_alike(supernet):
    configs = tiny.random_configs(supernet, 20)
    exact, rounded = (make_evaluator(supernet, precision=name) for name in ("float32", "bfloat16"))
    gap = np.abs(exact.logits(configs) - rounded.logits(configs))
    assert 0 < gap.mean() < 0.05 * np.abs(exact.logits(configs)).mean()
    assert np.mean(np.stack(exact.predict(configs)) == np.stack(rounded.predict(configs))) > 0.9
    assert {parameter.dtype for parameter in supernet.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("gains", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_the_number_format_follows_the_device_unless_told(bert, monkeypatch, gains, precision):
    monkeypatch.setattr(evaluator, "gains_from_bfloat16", lambda _device: gains)
    assert make_evaluator(bert, precision="auto").precision == precision


def test_an_unknown_precision_is_refused(bert):
    with pytest.raises(
        ValueError,
        match=r"precision must be auto or one of float32, .*, int8_ffn, but got precision='int4'",
    ):
        make_evaluator(bert, precision="int4")


def test_importance_is_that_of_the_blocks_in_the_order_of_the_space(bert):
    judge = make_evaluator(bert)
    assert judge.importance is None
    bert.block_importance = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert judge.importance.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert len(judge.importance) == len(LayerwiseSpace.for_model(bert.shape).nvec)


def test_importance_kept_is_known_once_heads_and_units_are_in_order(bert):
    judge = make_evaluator(bert)
    assert isinstance(judge, WeighingEvaluator)
    assert judge.kept_importance is None
    shape = bert.shape
    bert.importance = Importance(
        np.ones((shape.num_hidden_layers, shape.num_attention_heads)),
        np.full((shape.num_hidden_layers, shape.intermediate_size), 0.5),
    )
    space = LayerwiseSpace.for_model(shape)
    everything = shape.num_hidden_layers * (shape.num_attention_heads + 0.5 * shape.intermediate_size)
    assert judge.kept_importance([space.smallest(), space.largest()]) == [0.0, everything]


def test_it_is_an_evaluator_by_the_laws(bert):
    judge = make_evaluator(bert)
    assert isinstance(judge, InformedEvaluator)
    assert judge.latency is latency
    assert judge([]) == []
    check_evaluator(judge, LayerwiseSpace.for_model(bert.shape))


def test_a_config_that_does_not_fit_is_refused(bert):
    too_wide = SubnetConfig((LayerConfig(4, 48), LayerConfig(4, 48), LayerConfig(4, 96)))
    with pytest.raises(InvalidSubnetError, match="intermediate_size of layer 2 may be at most 48"):
        make_evaluator(bert)([bert.shape.full, too_wide])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["classes", "values", "race"])
def test_the_subnet_whose_logits_are_not_finite_is_named(checkpoints, value, kind):
    """Classes would hide it: the largest of NaNs is a class like any other."""
    task = tiny.make_task(() if kind == "values" else tiny.LABELS)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    judge = make_evaluator(supernet, task, racing=Racing() if kind == "race" else None)
    good = SubnetConfig((LayerConfig(4, 48), LayerConfig(4, 48), LayerConfig(4, 36)))
    assert len(judge([good])) == 1
    supernet.model.layers[2].ffn.inner.bias.data[40] = value
    broken = make_evaluator(supernet, task, racing=Racing() if kind == "race" else None)
    assert len(broken([good])) == 1
    with pytest.raises(
        EvaluationError, match="the subnet 4h48 4h48 4h48 predicts values that are not finite"
    ) as caught:
        broken([good, supernet.shape.full, good])
    assert caught.value.config == supernet.shape.full


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pack_tokens": 0}, "pack_tokens must be an integer of at least 1, but got pack_tokens=0"),
        ({"pack_tokens": 2.5}, "but got pack_tokens=2.5"),
        ({"group_tokens": -1}, "group_tokens must be at least 0, but got group_tokens=-1"),
    ],
)
def test_sizes_out_of_range_are_refused(bert, settings, message):
    with pytest.raises(ValueError, match=message):
        make_evaluator(bert, **settings)


def test_no_configs_are_no_work(bert):
    judge = make_evaluator(bert)
    assert judge([]) == judge.predict([]) == []
    assert judge.logits([]).shape == (0, 40, 3)
    assert judge.cost == EvaluationCost()
    assert make_evaluator(bert, racing=Racing())([]) == []


# Equality and determinism


def test_logits_equal_those_of_the_extracted_models(supernet):
    configs = tiny.random_configs(supernet, 12)
    found = make_evaluator(supernet).logits(configs)
    assert found.shape == (12, 40, 3)
    encoded = supernet.encode(TASK.search)
    for config, logits in zip(configs, found, strict=True):
        model = supernet.extract(config)
        for batch in sorted_batches(encoded, 16):
            with torch.inference_mode():
                expected = model(**tiny.hf_inputs(batch)).logits.numpy()
            assert np.abs(logits[batch.indices] - expected).max() < 1e-5
            assert np.array_equal(logits[batch.indices].argmax(axis=1), expected.argmax(axis=1))


def sibling_configs(config):
    """The config with every other size at every depth."""
    found = []
    for index, layer in enumerate(config.layers):
        others = [LayerConfig(heads, layer.intermediate_size) for heads in range(5)]
        others += [LayerConfig(layer.num_attention_heads, units) for units in range(0, 129, 32)]
        found += [
            SubnetConfig((*config.layers[:index], other, *config.layers[index + 1 :])) for other in others
        ]
    return found


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("pack_tokens", [20, 150, 1024])
def test_a_config_s_result_does_not_depend_on_its_batch_bit_for_bit(
    wide, monkeypatch, precision, pack_tokens
):
    n_shared = 0
    can_share = PackedBlocks.can_share

    def counting(self, *arguments):
        nonlocal n_shared
        can = can_share(self, *arguments)
        n_shared += can
        return can

    monkeypatch.setattr(PackedBlocks, "can_share", counting)
    judge = make_evaluator(wide, precision=precision, pack_tokens=pack_tokens)
    configs = random_wide_configs(wide, 12)
    alone = [judge.logits([config])[0] for config in configs]
    assert n_shared == 0
    assert np.array_equal(judge.logits(configs), alone)
    assert np.array_equal(judge.logits(configs[::-1])[::-1], alone)
    for index in (0, 5):
        n_shared = 0
        siblings = sibling_configs(configs[index])
        assert np.array_equal(judge.logits([*siblings, configs[index]])[-1], alone[index])
        packs = pack_items(wide.encode(TASK.search), np.arange(40), pack_tokens, wide.device)
        n_large = sum(pack.layout.n_tokens >= 16 for pack in packs)
        assert n_shared == 6 * n_large > 0
    grouped = make_evaluator(
        wide, precision=precision, pack_tokens=pack_tokens, group_tokens=5 * pack_tokens
    )
    assert "breadth first" in grouped.traversal
    assert np.array_equal(grouped.logits(configs), alone)
    assert len({logits.tobytes() for logits in alone}) == 12


def random_wide_configs(supernet, n):
    space = LayerwiseSpace.for_model(supernet.shape, intermediate_size=range(0, 129, 32))
    rng = np.random.default_rng(0)
    return [space.sample(rng) for _ in range(n)]


def test_the_traversal_says_which_way_and_how_much_at_once(bert):
    n_tokens = int(bert.encode(TASK.search).lengths.sum())
    assert make_evaluator(bert).traversal == "depth first, packs of up to 1,024 tokens"
    grouped = make_evaluator(bert, group_tokens=3 * n_tokens, pack_tokens=20_000)
    raced = make_evaluator(bert, racing=Racing(), group_tokens=600)
    assert raced.traversal.startswith("breadth first")  # its chunks are small, whatever the split is
    assert (
        grouped.traversal
        == f"breadth first, products of up to {3 * n_tokens:,} tokens, packs of up to 20,000 tokens"
    )


def test_large_batches_are_parted_and_answer_alike(bert, monkeypatch):
    configs = tiny.random_configs(bert, 40)
    judge = make_evaluator(bert, pack_tokens=100, group_tokens=300)
    whole = judge.logits(configs)
    trees = []

    def growing(paths, members):
        trees.append(list(members))
        return tree_of(paths, members)

    monkeypatch.setattr(evaluator, "tree_of", growing)
    monkeypatch.setattr(evaluator, "BREADTH_BYTES", 2 * 7 * 100 * tiny.HIDDEN * 4)
    assert np.array_equal(judge.logits(configs), whole)
    n_packs = len(pack_items(bert.encode(TASK.search), np.arange(40), 100, bert.device))
    assert len(trees) >= n_packs * 40 // 10
    assert max(len(members) for members in trees) <= 14
    assert sorted(index for members in trees for index in members) == sorted(list(range(40)) * n_packs)


# Cost and memory


def test_the_cost_is_that_of_the_items_without_padding(bert):
    judge = make_evaluator(bert, pack_tokens=100)
    configs = tiny.random_configs(bert, 6)
    judge(configs[:2])
    first = judge.cost
    judge(configs[2:])
    lengths = bert.encode(TASK.search).lengths
    n, n_tokens = len(configs), int(lengths.sum())
    full = tiny.NUM_LAYERS * (
        n_tokens * (2 * 4 * tiny.HIDDEN**2 + 2 * 2 * tiny.HIDDEN * tiny.UNITS)
        + 4 * tiny.HIDDEN * int((lengths**2).sum())
    )
    cost = judge.cost
    assert (cost.n_configs, cost.n_items, cost.n_tokens) == (n, n * 40, n * n_tokens)
    assert cost.masked_flops == n * full
    assert (first.n_configs, first.masked_flops) == (2, 2 * full)
    assert 0 < first.flops < cost.flops < cost.masked_flops
    assert judge.padding_share == 0


def test_the_full_model_alone_costs_what_masks_do_and_copies_are_free(bert):
    once, often = make_evaluator(bert), make_evaluator(bert)
    once([bert.shape.full])
    often([bert.shape.full] * 5)
    assert once.cost.flops == once.cost.masked_flops == often.cost.flops
    assert often.cost.masked_flops == 5 * once.cost.flops


def test_the_memory_bound_grows_with_configs_items_and_packs(bert):
    configs = tiny.random_configs(bert, 20)

    def bound(n=40, n_configs=20, **settings):
        return make_evaluator(bert, tiny.make_task(n=n), **settings).memory_bound(configs[:n_configs])

    assert bound(n_configs=2) < bound()
    assert bound(n=200) < bound(n=400)
    assert bound(pack_tokens=50) < bound(pack_tokens=500)
    assert bound(group_tokens=4000) > bound() + evaluator.BREADTH_BYTES


class LiveBytes(TorchDispatchMode):
    """Most bytes of tensors that are alive at once, those of `known` not counted."""

    def __init__(self, known):
        super().__init__()
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._alive = {}
        self.most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: value for key, value in self._alive.items() if not value[0].expired()}
        self.most = max(self.most, sum(n_bytes for _, n_bytes in self._alive.values()))
        return result


@pytest.mark.parametrize("group_tokens", [0, 400])
def test_measured_memory_keeps_the_bound(bert, monkeypatch, group_tokens):
    monkeypatch.setattr(evaluator, "BREADTH_BYTES", 10**6)
    monkeypatch.setattr(evaluator, "LIBRARY_BYTES", 0)  # tensors alone are measured
    judge = make_evaluator(bert, pack_tokens=100, group_tokens=group_tokens)
    configs = tiny.random_configs(bert, 100)
    with LiveBytes(judge._model.parameters()) as live:
        judge.predict(configs)
    bound = judge.memory_bound(configs)
    assert bound / (8 if group_tokens else 4) < live.most <= bound


# Racing


@pytest.fixture
def field(bert):
    """A task on which the full model is right everywhere, and evaluators of it by their settings."""
    split = tiny.make_split(300, seed=1, name="search")
    (answers,) = make_evaluator(bert, replace(TASK, search=split)).predict([bert.shape.full])
    task = replace(TASK, search=replace(split, labels=answers.astype(np.int64)))

    def make(**settings):
        settings = {"precision": "float32", "racing": Racing(chunk_items=20)} | settings
        return SupernetEvaluator(bert, task, lambda configs: [1.0] * len(configs), **settings)

    return task, make


def test_a_race_lets_losers_leave_and_says_on_how_many_items_they_were_judged(bert, field):
    _, make = field
    configs = tiny.random_configs(bert, 16)
    plain, raced = make(racing=None), make()
    n_out, answers = 0, raced(configs)
    for full, metrics in zip(plain(configs), answers, strict=True):
        assert metrics.latency_ms == full.latency_ms
        assert metrics.n_params == full.n_params
        n_right = round(metrics.accuracy * metrics.n_items)
        assert metrics.accuracy == n_right / metrics.n_items
        assert metrics.accuracy_ci == wilson_interval(n_right, metrics.n_items)
        assert metrics.raced_out == (metrics.n_items < 300)
        if metrics.raced_out:
            n_out += 1
            assert metrics.correct is None
            assert metrics.n_items % 20 == 0
        else:
            assert metrics == full
    assert n_out >= 10
    costs = plain.cost, raced.cost
    assert costs[1].n_items == sum(metrics.n_items for metrics in answers) < 0.7 * costs[0].n_items
    assert costs[1].masked_flops == costs[0].masked_flops  # masks race nobody
    assert not raced([bert.shape.full])[0].raced_out


def test_what_stays_in_a_race_carries_its_answers(bert, field):
    task, make = field
    configs = tiny.random_configs(bert, 8)
    predictions = make(racing=None).predict(configs)
    answers = make()(configs)
    complete = [index for index, metrics in enumerate(answers) if not metrics.raced_out]
    assert complete
    for index in complete:
        bits = np.unpackbits(np.frombuffer(answers[index].correct, dtype=np.uint8), count=300)
        assert np.array_equal(bits, predictions[index] == task.search.labels)


def test_the_estimate_of_a_loser_is_that_of_the_first_chunks(bert, field):
    task, make = field
    configs = tiny.random_configs(bert, 16)
    predictions, raced = make(racing=None).predict(configs), make()(configs)
    order = np.concatenate(Racing(chunk_items=20).chunks(300, 0))
    for answers, metrics in zip(predictions, raced, strict=True):
        seen = order[: metrics.n_items]
        assert metrics.accuracy == np.mean(answers[seen] == task.search.labels[seen])


def test_champions_of_earlier_batches_let_later_subnets_leave(bert, field):
    _, make = field
    loser = bert.shape.full
    configs = tiny.random_configs(bert, 16)
    answers = dict(zip(configs, make(racing=None)(configs), strict=True))
    loser = min(configs, key=lambda config: answers[config].accuracy)
    assert not make()([loser])[0].raced_out
    judge = make()
    judge([bert.shape.full])
    (metrics,) = judge([loser])
    assert metrics.raced_out
    assert judge.cost.n_items == 300 + metrics.n_items


def test_recalled_trials_lead_to_the_same_races_as_if_they_had_been_judged(bert, field):
    _, make = field
    configs = tiny.random_configs(bert, 24)
    unbroken, resumed = make(), make()
    first = unbroken(configs[:12])
    trials = [
        Trial(index, config, Metrics.from_dict(metrics.to_dict()), 0.0)
        for index, (config, metrics) in enumerate(zip(configs, first, strict=False))
    ]
    resumed.recall(trials[:5])
    resumed.recall(trials[5:])
    later = unbroken(configs[12:])
    assert resumed(configs[12:]) == later
    assert isinstance(resumed, RecallingEvaluator)
    assert any(metrics.raced_out for metrics in later)
    assert make()(configs[12:]) != later


class Batches:
    """Proposes random batches of eight."""

    def search(self, problem, evaluate, budget, seed):
        rng = np.random.default_rng(seed)
        while True:
            evaluate([problem.space.sample(rng) for _ in range(8)])


def test_a_search_that_is_resumed_races_as_an_unbroken_one(bert, field, tmp_path):
    _, make = field
    space = LayerwiseSpace.for_model(bert.shape)

    def run(budget, folder, **settings):
        where = {"budget": budget, "path": tmp_path / folder}
        return search(space, make(), LinearPenalty(), Batches(), **where, **settings)

    unbroken = run(32, "unbroken")
    run(16, "broken")
    resumed = run(32, "broken", resume=True)
    assert resumed.trials == unbroken.trials
    later = [trial.metrics for trial in unbroken.trials[16:]]
    assert 0 < sum(metrics.raced_out for metrics in later) < 16
    assert not unbroken.best.metrics.raced_out


def test_a_racing_evaluator_keeps_the_laws(bert, field):
    _, make = field
    check_evaluator(make(), LayerwiseSpace.for_model(bert.shape))


@pytest.mark.parametrize(
    ("names", "metric"), [(("a", "b"), "f1"), (("a", "b"), "matthews"), ((), "pearson"), ((), "spearman")]
)
def test_only_accuracy_is_raced(bert, names, metric):
    task = replace(tiny.make_task(names), metric=metric)
    with pytest.raises(ValueError, match=f"needs metric='accuracy', but the task has metric='{metric}'"):
        make_evaluator(bert, task, racing=Racing())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.3)])
def test_a_gpu_answers_as_the_cpu_does_in_both_traversals(checkpoints, precision, tolerance):
    """In bfloat16 by the attention that skips padding; its results do not depend on the batch."""
    on_cpu, on_gpu = (
        Supernet.from_pretrained(checkpoints["bert"], TASK, device=device) for device in ("cpu", "cuda")
    )
    configs = tiny.random_configs(on_cpu, 20)
    expected = make_evaluator(on_cpu).logits(configs)
    for group_tokens in (0, 4096):
        judge = make_evaluator(on_gpu, precision=precision, group_tokens=group_tokens)
        found = judge.logits(configs)
        np.testing.assert_allclose(found, expected, atol=tolerance)
        assert np.array_equal(judge.logits(configs[3:4])[0], found[3])

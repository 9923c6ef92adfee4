from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from rlnas.errors import CheckpointError, RunFolderError, TrainingError
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig, UniformSpace
from rlnas.supernet import FullTrainer, SandwichTrainer, Supernet, optimisation
from rlnas.supernet.importance import task_loss
from rlnas.supernet.inference import predict
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.training import narrowest_subnet, prepare, sample_by_size

FAST = Optimisation(
    epochs=6, batch_size=16, learning_rate=2e-3, head_learning_rate=5e-3, precision="float32"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT without a classifier, with its usual dropout."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("encoder"), "bert", label_names=None)


@pytest.fixture
def fresh(encoder):
    """An untrained classifier of `tiny.learnable_task`."""
    return Supernet.from_pretrained(encoder, tiny.learnable_task())


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same_weights(first, second):
    return all(torch.equal(weight, second[name]) for name, weight in first.items())


def mean_loss(supernet, config, split):
    batch = tiny.one_batch(supernet, split)
    with torch.inference_mode():
        return task_loss(supernet.forward(config, batch), batch.labels).item()


# Which weights a subnet trains


def test_gradients_of_a_subnet_touch_its_slice_alone(supernet):
    config = SubnetConfig((LayerConfig(2, 12), LayerConfig(0, 30), LayerConfig(1, 0)))
    batch = tiny.padded_batch(supernet, tiny.make_split(6))
    task_loss(supernet.forward(config, batch), batch.labels).backward()
    extracted = supernet.extract(config)
    kept = {name: parameter.shape for name, parameter in extracted.named_parameters()}
    for name, parameter in supernet.model.named_parameters():
        if name not in kept:
            assert parameter.grad is None
            continue
        inside = torch.zeros_like(parameter, dtype=torch.bool)
        inside[tuple(slice(size) for size in kept[name])] = True
        assert torch.all(parameter.grad[~inside] == 0)
        # A bias of the keys shifts all scores of a query alike: softmax does not see it.
        if not name.endswith("attention.key.bias"):
            assert parameter.grad[inside].abs().max() > 0


# Which subnets are trained


SPACE = LayerwiseSpace.for_model(tiny.SHAPE)


def kept_share(config):
    kept = sum(layer.num_attention_heads / 4 + layer.intermediate_size / 48 for layer in config.layers)
    return kept / (2 * len(config.layers))


def test_random_subnets_are_spread_evenly_over_sizes():
    rng = np.random.default_rng(0)
    shares = np.array([kept_share(sample_by_size(SPACE, rng)) for _ in range(4000)])
    fifths = np.histogram(shares, bins=np.linspace(0, 1 + 1e-9, 6))[0] / len(shares)
    assert np.all(np.abs(fifths - 0.2) < 0.06), fifths
    uniform = np.array([kept_share(SPACE.sample(rng)) for _ in range(4000)])
    middle = np.histogram(uniform, bins=np.linspace(0, 1 + 1e-9, 6))[0] / len(uniform)
    assert middle[0] + middle[-1] < 0.05  # what drawing every position by itself would give


def test_random_subnets_lack_blocks_and_whole_layers_at_times():
    rng = np.random.default_rng(1)
    layers = [layer for _ in range(2000) for layer in sample_by_size(SPACE, rng).layers]
    without_attention = np.mean([layer.num_attention_heads == 0 for layer in layers])
    without_ffn = np.mean([layer.intermediate_size == 0 for layer in layers])
    dropped = np.mean([layer.is_dropped for layer in layers])
    # At level u the lowest of 5 options has probability (1 - u)^4: on average 1/5, for both blocks 1/9.
    assert without_attention == pytest.approx(1 / 5, abs=0.03)
    assert without_ffn == pytest.approx(1 / 5, abs=0.03)
    assert dropped == pytest.approx(1 / 9, abs=0.025)


def test_random_subnets_are_members_and_depend_on_the_generator_alone():
    for space in (SPACE, UniformSpace.for_model(tiny.SHAPE)):
        first, again = (
            [sample_by_size(space, np.random.default_rng(s)) for s in range(50)] for _ in range(2)
        )
        assert first == again
        assert all(config in space for config in first)
        assert len(set(first)) > 10


def test_the_narrowest_subnet_drops_nothing():
    assert narrowest_subnet(SPACE) == SubnetConfig((LayerConfig(1, 12),) * 3)


def test_the_narrowest_subnet_of_a_space_that_cannot_but_drop_is_its_smallest():
    uniform = UniformSpace.for_model(tiny.SHAPE)
    assert narrowest_subnet(uniform) in uniform
    only_gone = LayerwiseSpace.for_model(tiny.SHAPE, [0], [0, 12])
    assert narrowest_subnet(only_gone) == SubnetConfig((LayerConfig(0, 12),) * 3)


# Fine-tuning


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fine_tuning_learns_a_learnable_task(fresh, precision):
    task = tiny.learnable_task()
    before = mean_loss(fresh, fresh.shape.full, task.train)
    FullTrainer(replace(FAST, epochs=8, precision=precision)).train(fresh, task, progress=False)
    assert fresh.fine_tuned
    assert mean_loss(fresh, fresh.shape.full, task.train) < 0.5 * before
    accuracy = np.mean(predict(fresh.model, fresh.encode(task.train)) == task.train.labels)
    assert accuracy > 0.8


def test_fine_tuning_for_no_epochs_leaves_the_head_untrained(fresh):
    FullTrainer(Optimisation(epochs=0)).train(fresh, tiny.learnable_task(), progress=False)
    assert not fresh.fine_tuned


@pytest.mark.parametrize(
    "names", [("a", "b"), tuple(map(str, range(150))), ()], ids=["2", "150", "regression"]
)
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_every_kind_of_task_is_trained_and_shared(encoder, names, pairs):
    task = tiny.make_task(names, pairs=pairs)
    supernet = Supernet.from_pretrained(encoder, task)
    before = weights_of(supernet.model)
    SandwichTrainer(epochs=1, full_epochs=1, importance_items=8, optimisation=FAST).train(
        supernet, task, progress=False
    )
    assert supernet.fine_tuned
    assert supernet.block_importance.shape == (3, 2)
    assert not any(
        torch.equal(weight, before[name]) for name, weight in supernet.model.state_dict().items()
    )


# Sharing


def test_sharing_teaches_narrow_and_shallow_subnets(fresh):
    task = tiny.learnable_task()
    FullTrainer(FAST).train(fresh, task, progress=False)
    prepare(fresh, task.train, 32, 0)
    full = fresh.shape.full
    subnets = [
        SubnetConfig((LayerConfig(1, 12),) * 3),
        SubnetConfig((full.layers[0], LayerConfig(0, 0), LayerConfig(0, 0))),
        SubnetConfig((LayerConfig(0, 0), LayerConfig(2, 0), LayerConfig(0, 24))),
    ]
    before = [mean_loss(fresh, config, task.train) for config in subnets]
    SandwichTrainer(epochs=12, optimisation=FAST).share(fresh, task.train, progress=False)
    after = [mean_loss(fresh, config, task.train) for config in subnets]
    assert all(late < 0.85 * early for early, late in zip(before, after, strict=True)), (before, after)
    assert mean_loss(fresh, full, task.train) < 0.3


def test_every_step_runs_the_largest_the_narrowest_and_random_subnets(bert, monkeypatch):
    forward, seen = bert.forward, []
    monkeypatch.setattr(
        bert, "forward", lambda config, batch: seen.append(config) or forward(config, batch)
    )
    space = LayerwiseSpace.for_model(bert.shape)
    SandwichTrainer(epochs=2, num_random=2, optimisation=FAST).share(
        bert, tiny.make_split(32), progress=False
    )
    steps = [seen[start : start + 4] for start in range(0, len(seen), 4)]
    assert len(steps) == 4
    assert all(step[:2] == [space.largest(), narrowest_subnet(space)] for step in steps)
    assert len({config for step in steps for config in step[2:]}) > 4


def test_random_subnets_come_from_the_space_that_is_given(bert, monkeypatch):
    forward, seen = bert.forward, []
    monkeypatch.setattr(
        bert, "forward", lambda config, batch: seen.append(config) or forward(config, batch)
    )
    space = LayerwiseSpace.for_model(bert.shape, [2, 4], [24, 48])
    SandwichTrainer(epochs=2, space=space, optimisation=FAST).share(
        bert, tiny.make_split(32), progress=False
    )
    assert all(config in space for config in seen)


def test_a_fine_tuned_checkpoint_is_only_ordered_where_no_training_is_asked_for(bert):
    task = tiny.make_task()
    batch = tiny.padded_batch(bert, task.search)
    before = weights_of(bert.model)
    with torch.inference_mode():
        full = bert.forward(bert.shape.full, batch)
    SandwichTrainer(epochs=0, full_epochs=0).train(bert, task, progress=False)
    with torch.inference_mode():
        assert tiny.largest_gap(full, bert.forward(bert.shape.full, batch)) <= 1e-5
    assert bert.block_importance.shape == (3, 2)
    for name, weight in bert.model.state_dict().items():
        assert torch.equal(weight.flatten().sort().values, before[name].flatten().sort().values)
    assert not same_weights(before, bert.model.state_dict())


def test_a_fine_tuned_checkpoint_is_not_fine_tuned_again(bert, monkeypatch):
    monkeypatch.setattr(FullTrainer, "train", lambda *_args, **_settings: pytest.fail("trained in full"))
    SandwichTrainer(epochs=0, full_epochs=3).train(bert, tiny.make_task(), progress=False)
    assert bert.block_importance is not None


def test_an_untrained_head_without_training_is_refused_with_the_reason(fresh):
    before = weights_of(fresh.model)
    with pytest.raises(
        CheckpointError,
        match=r"no trained classifier .* importance would be noise; train first \(epochs >= 1\)",
    ):
        SandwichTrainer(epochs=0, full_epochs=0).train(fresh, tiny.learnable_task(), progress=False)
    assert same_weights(before, fresh.model.state_dict())


def test_labels_that_are_not_numbers_end_the_training(encoder):
    task = tiny.make_task(())
    task.train.labels[3] = np.nan
    supernet = Supernet.from_pretrained(encoder, task)
    with pytest.raises(TrainingError, match="the loss became nan at step 0 of 'fine-tune the full model'"):
        SandwichTrainer(optimisation=Optimisation(batch_size=24)).train(supernet, task, progress=False)


def test_importance_is_estimated_on_as_many_items_as_asked_for(bert, monkeypatch):
    encode, seen = bert.encode, []
    monkeypatch.setattr(bert, "encode", lambda split: seen.append(split.texts) or encode(split))
    split = tiny.make_split(20)
    for n_items, seed in ((7, 0), (7, 0), (7, 1), (100, 0)):
        prepare(bert, split, n_items, seed)
    assert [len(texts) for texts in seen] == [7, 7, 7, 20]
    assert seen[0] == seen[1] != seen[2]
    assert set(seen[0]) <= set(split.texts)


# Interruption


def interrupt(monkeypatch, moment):
    """Batches seen; the run ends with an error at the given one, once."""
    collate, seen = optimisation.collate, []

    def collating(*arguments):
        seen.append(len(seen))
        if len(seen) == moment:
            raise InterruptedError
        return collate(*arguments)

    monkeypatch.setattr(optimisation, "collate", collating)
    return seen


def fine_tune(encoder, checkpoint, settings):
    supernet = Supernet.from_pretrained(encoder, tiny.learnable_task())
    FullTrainer(settings).train(supernet, tiny.learnable_task(), checkpoint=checkpoint, progress=False)
    return supernet.model


def share(encoder, checkpoint, settings):
    supernet = Supernet.from_pretrained(encoder, tiny.learnable_task())
    SandwichTrainer(epochs=1, full_epochs=1, importance_items=8, optimisation=settings).train(
        supernet, tiny.learnable_task(), checkpoint=checkpoint, progress=False
    )
    assert supernet.block_importance is not None
    return supernet.model


@pytest.mark.parametrize(
    ("train", "moment"),
    [(fine_tune, 1), (fine_tune, 4), (fine_tune, 7), (share, 3), (share, 7)],
)
def test_an_interrupted_training_ends_with_the_weights_of_an_unbroken_one(
    encoder, tmp_path, monkeypatch, train, moment
):
    settings = Optimisation(epochs=2, batch_size=16, checkpoint_seconds=0.0, precision="float32")
    unbroken = train(encoder, None, settings)
    assert unbroken.config.hidden_dropout_prob == unbroken.config.attention_probs_dropout_prob == 0.1
    path = tmp_path / "training"
    seen = interrupt(monkeypatch, moment)
    with pytest.raises(InterruptedError):
        train(encoder, path, settings)
    resumed = train(encoder, path, settings)
    assert same_weights(unbroken.state_dict(), resumed.state_dict())
    assert list(tmp_path.iterdir()) == []
    if train is not share:  # whose first part, once over, is run again
        assert len(seen) == 8 + 1  # the batch of the interruption alone is seen twice


@pytest.mark.parametrize("suffix", ["full", "shared"])
def test_a_damaged_checkpoint_of_either_part_is_refused(encoder, tmp_path, suffix):
    (tmp_path / f"training-{suffix}.pt").write_bytes(b"damaged")
    with pytest.raises(
        RunFolderError, match=rf"training-{suffix}\.pt' is damaged; delete it to train from the start"
    ):
        share(encoder, tmp_path / "training", Optimisation(batch_size=16))


def test_equal_seeds_give_equal_weights(encoder):
    settings = [Optimisation(batch_size=16, seed=seed) for seed in (5, 5, 6)]
    first, again, other = (share(encoder, None, each).state_dict() for each in settings)
    assert same_weights(first, again)
    assert not same_weights(first, other)

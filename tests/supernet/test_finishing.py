from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from rlnas.errors import InvalidSubnetError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import FullTrainer, SubnetFinisher, Supernet, finishing, looks, optimisation
from rlnas.supernet.distillation import hidden_loss, hidden_states, kept_layers
from rlnas.supernet.finishing import Finished
from rlnas.supernet.inference import predict
from rlnas.supernet.optimisation import Optimisation
from rlnas.task import Split

FAST = Optimisation(
    epochs=6, batch_size=16, learning_rate=2e-3, head_learning_rate=5e-3, precision="float32"
)
UNEVEN = SubnetConfig((LayerConfig(2, 24), LayerConfig(0, 0), LayerConfig(1, 12)))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT without a classifier, with its usual dropout."""
    return tiny.write_checkpoint(tmp_path_factory.mktemp("encoder"), "bert", label_names=None)


@pytest.fixture
def fresh(encoder):
    """An untrained classifier of `tiny.learnable_task`."""
    return Supernet.from_pretrained(encoder, tiny.learnable_task())


@pytest.fixture(scope="module")
def taught(encoder):
    """The same, trained; not to be changed."""
    supernet = Supernet.from_pretrained(encoder, tiny.learnable_task())
    FullTrainer(FAST).train(supernet, tiny.learnable_task(), progress=False)
    return supernet


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def same_weights(first, second):
    return all(torch.equal(weight, second[name]) for name, weight in first.items())


def validation(n=24):
    """Items of the same task that are not trained on."""
    texts = tuple(
        f"{('bad dull', 'good bright')[i % 2]} {text}" for i, text in enumerate(tiny.texts(n, 99))
    )
    return Split("search", texts, None, np.arange(n) % 2)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_weight": 1.5}, r"teacher_weight must be in \[0, 1\], but got teacher_weight=1.5"),
        ({"teacher_weight": float("nan")}, "teacher_weight must be in .* but got teacher_weight=nan"),
        (
            {"hidden_weight": -1.0},
            "hidden_weight must be a number of at least 0, but got hidden_weight=-1.0",
        ),
        ({"hidden_weight": float("inf")}, "hidden_weight must be a number .* hidden_weight=inf"),
        ({"patience": 0}, "patience must be at least 1 look, but got patience=0"),
        ({"looks_per_epoch": 0}, "looks_per_epoch must be at least 1, but got looks_per_epoch=0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SubnetFinisher(**settings)


def test_a_patience_needs_something_to_look_at(fresh):
    with pytest.raises(ValueError, match="patience=2 needs validation items to look at"):
        SubnetFinisher(patience=2).finish(fresh.extract(UNEVEN), fresh, tiny.learnable_task().train)


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 2}, {"hidden_size": 16}])
def test_a_teacher_of_another_shape_is_refused_where_hidden_states_count(fresh, tmp_path, changes):
    other = Supernet.from_pretrained(
        tiny.write_checkpoint(tmp_path, "bert", label_names=None, **changes), tiny.learnable_task()
    )
    subnet, split = fresh.extract(UNEVEN), tiny.learnable_task().train
    with pytest.raises(
        InvalidSubnetError, match=r"the teacher has . layers of hidden size .., but the subnet 3"
    ):
        SubnetFinisher(hidden_weight=1.0).finish(subnet, other, split, progress=False)
    SubnetFinisher().finish(subnet, other, split, progress=False)  # answers alone may


# What is learnt


def test_finishing_improves_the_subnet_and_leaves_the_teacher(taught):
    task = tiny.learnable_task()
    subnet = taught.extract(UNEVEN)
    encoded, before = taught.encode(task.train), weights_of(taught.model)
    early = np.mean(predict(subnet, encoded) == task.train.labels)
    finished = SubnetFinisher(replace(FAST, epochs=10)).finish(subnet, taught, task.train, progress=False)
    late = np.mean(predict(subnet, encoded) == task.train.labels)
    assert late > max(0.8, early - 1e-9)
    assert same_weights(before, taught.model.state_dict())
    assert not subnet.training
    assert finished == Finished()


def test_with_all_weight_on_the_teacher_labels_do_not_matter(fresh):
    results = []
    for labels in (0, 1):
        split = tiny.learnable_task().train
        split.labels[:] = labels
        subnet = fresh.extract(SubnetConfig((LayerConfig(1, 12),) * 3))
        SubnetFinisher(Optimisation(epochs=1, batch_size=16), teacher_weight=1.0).finish(
            subnet, fresh, split, progress=False
        )
        results.append(weights_of(subnet))
    assert same_weights(*results)


@pytest.mark.parametrize(
    ("epochs", "hidden_weight", "times"), [(3, 0.0, 1), (3, 1.0, 3), (1, 1.0, 1), (0, 0.0, 0)]
)
def test_a_teacher_answers_each_item_once_but_for_its_hidden_states(
    taught, monkeypatch, epochs, hidden_weight, times
):
    task, asked = tiny.learnable_task(), 0
    real = finishing.hidden_states

    def counting(model, batch):
        nonlocal asked
        asked += len(batch.labels) * (model is taught.model)
        return real(model, batch)

    monkeypatch.setattr(finishing, "hidden_states", counting)
    SubnetFinisher(replace(FAST, epochs=epochs), hidden_weight=hidden_weight).finish(
        taught.extract(UNEVEN), taught, task.train, progress=False
    )
    assert asked == times * len(task.train)


def test_a_regression_is_finished_and_looked_at(checkpoints):
    task = tiny.make_task((), n=40)
    supernet = Supernet.from_pretrained(checkpoints["bert"], task)
    subnet = supernet.extract(UNEVEN)
    finished = SubnetFinisher(replace(FAST, epochs=2), patience=2).finish(
        subnet,
        supernet,
        task.train,
        validation=task.search,
        metric=lambda labels, values: -float(np.mean((labels - values) ** 2)),
        progress=False,
    )
    assert finished.looks[finished.kept_look] >= finished.looks[0]
    errors = (predict(subnet, supernet.encode(task.search)) - task.search.labels) ** 2
    assert -float(np.mean(errors)) == pytest.approx(finished.looks[finished.kept_look], rel=1e-4)


def test_hidden_states_come_closer_to_the_teachers_where_they_count(taught):
    task = tiny.learnable_task()
    batch = tiny.one_batch(taught, task.train)
    gaps = []
    for weight in (0.0, 5.0):
        subnet = taught.extract(UNEVEN)
        SubnetFinisher(FAST, hidden_weight=weight).finish(subnet, taught, task.train, progress=False)
        with torch.inference_mode():
            own, goals = (hidden_states(model, batch)[0] for model in (subnet, taught.model))
        kept = kept_layers(subnet)
        own, goals = ([side[i] for i in kept] for side in (own, goals))
        gaps.append(hidden_loss(own, goals, batch.attention_mask).item())
    assert gaps[1] < 0.7 * gaps[0]


def test_a_subnet_without_layers_is_finished_by_its_answers(fresh):
    subnet = fresh.extract(SubnetConfig((LayerConfig(0, 0),) * 3))
    before = weights_of(subnet)
    SubnetFinisher(replace(FAST, epochs=1), hidden_weight=1.0).finish(
        subnet, fresh, tiny.learnable_task().train, progress=False
    )
    assert not same_weights(before, subnet.state_dict())


# Early stopping


def falling(scores):
    """A metric that finds these scores, whatever the model answers."""
    found = iter(scores)
    return lambda *_: next(found)


def test_a_training_without_gain_ends_early_with_its_best_weights(taught, monkeypatch):
    monkeypatch.setattr(looks, "difference_error", lambda *_: 0.0)
    scores, results, weights = [0.5, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [], []

    for patience in (None, 2):
        subnet, metric = taught.extract(UNEVEN), falling(scores)

        def looking(*_, subnet=subnet, metric=metric):
            weights.append(weights_of(subnet))
            return metric()

        results.append(
            SubnetFinisher(FAST, patience=patience).finish(
                subnet,
                taught,
                tiny.learnable_task().train,
                validation=validation(),
                metric=looking,
                progress=False,
            )
        )
    assert results[0] == Finished(tuple(scores), best_look=1, kept_look=6, n_items=24)
    assert results[1] == Finished(
        tuple(scores[:4]), best_look=1, kept_look=1, n_items=24, stopped_early=True
    )
    assert same_weights(weights[1], subnet.state_dict())  # as its second look found it, in both trainings


def test_weights_that_were_best_before_the_training_are_kept(taught, monkeypatch):
    monkeypatch.setattr(looks, "difference_error", lambda *_: 0.0)
    subnet = taught.extract(UNEVEN)
    before = weights_of(subnet)
    finished = SubnetFinisher(FAST, patience=1).finish(
        subnet,
        taught,
        tiny.learnable_task().train,
        validation=validation(),
        metric=falling([0.9, 0.8]),
        progress=False,
    )
    assert same_weights(before, subnet.state_dict())
    assert (finished.best_look, finished.stopped_early) == (0, True)


def test_looking_does_not_change_what_is_learnt(taught):
    results = []
    for split in (None, validation()):
        subnet = taught.extract(UNEVEN)
        SubnetFinisher(replace(FAST, epochs=2), looks_per_epoch=2).finish(
            subnet, taught, tiny.learnable_task().train, validation=split, progress=False
        )
        results.append(weights_of(subnet))
    assert same_weights(*results)


def test_the_last_look_at_the_end_is_no_early_stop(taught, monkeypatch):
    monkeypatch.setattr(looks, "difference_error", lambda *_: 0.0)
    finished = SubnetFinisher(replace(FAST, epochs=2), patience=1).finish(
        taught.extract(UNEVEN),
        taught,
        tiny.learnable_task().train,
        validation=validation(),
        metric=falling([0.1, 0.2, 0.2]),
        progress=False,
    )
    assert finished == Finished((0.1, 0.2, 0.2), best_look=1, kept_look=2, n_items=24)


# Interruption


def interrupt(monkeypatch, moment):
    """Batches seen; the training ends with an error at the given one, once."""
    collate, seen = optimisation.collate, []

    def collating(*arguments):
        seen.append(len(seen))
        if len(seen) == moment:
            raise InterruptedError
        return collate(*arguments)

    monkeypatch.setattr(optimisation, "collate", collating)
    return seen


def finish(encoder, checkpoint):
    """Weights and looks of a training that ends early, as its third and fourth look are no better."""
    supernet = Supernet.from_pretrained(encoder, tiny.learnable_task())
    subnet = supernet.extract(UNEVEN)
    settings = Optimisation(epochs=4, batch_size=16, checkpoint_seconds=0.0, precision="float32")
    scores = []

    def metric(labels, predictions):
        # By the weights alone, so that a look that is repeated finds the same.
        scores.append(float(subnet.head.out.weight.detach().double().sum()))
        return scores[-1]

    finished = SubnetFinisher(settings, hidden_weight=1.0, patience=3, looks_per_epoch=2).finish(
        subnet,
        supernet,
        tiny.learnable_task().train,
        validation=validation(),
        metric=metric,
        checkpoint=checkpoint,
        progress=False,
    )
    return subnet, finished


@pytest.mark.parametrize("moment", [1, 2, 3, 5, 6, 8])
def test_an_interrupted_training_ends_with_the_weights_and_looks_of_an_unbroken_one(
    encoder, tmp_path, monkeypatch, moment
):
    unbroken, looks = finish(encoder, None)
    assert unbroken.config.hidden_dropout_prob == 0.1
    seen = interrupt(monkeypatch, moment)
    with pytest.raises(InterruptedError):
        finish(encoder, tmp_path / "training.pt")
    resumed, looks_again = finish(encoder, tmp_path / "training.pt")
    assert looks_again == looks
    assert same_weights(unbroken.state_dict(), resumed.state_dict())
    assert list(tmp_path.iterdir()) == []
    assert len(seen) == 2 * (len(looks.looks) - 1) + 1  # the batch of the interruption alone is seen twice

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from world import LABELS, write_checkpoint

from rlnas.data import read_task
from rlnas.errors import CheckpointError, TrainingError
from rlnas.run import training
from rlnas.run.folder import RunFolder
from rlnas.run.training import finish_subnet, furthest_supernet, load_supernet, train_supernet
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet import FullTrainer, SandwichTrainer, SubnetRepairer, Supernet

SMALL = SubnetConfig((LayerConfig(2, 0), LayerConfig(1, 16)))
SMALLER = SubnetConfig((LayerConfig(1, 0), LayerConfig(0, 16)))


@pytest.fixture
def task(finished):
    return read_task(finished / "data")


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


@pytest.fixture
def tuned_job(world, tmp_path_factory):
    """A job on a checkpoint that brings a classifier for the task."""
    return world.job(model=str(write_checkpoint(tmp_path_factory.mktemp("tuned"), LABELS)))


def schedule(job, **changes):
    return replace(job, schedule=replace(job.schedule, **changes))


def train(job, task, folder):
    supernet = furthest_supernet(job, task, folder)
    space = LayerwiseSpace.for_model(supernet.shape, keep_last_layer=job.keep_last_layer)
    train_supernet(job, supernet, space, task, folder, progress=False)
    return supernet


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_checkpoint_is_read_as_the_job_says(world, task):
    supernet = load_supernet(replace(world.job(), pooling="mean"), task)
    assert supernet.model.config.pooling == "mean"
    assert supernet.max_seq_len == world.job().workload.seq_len
    assert supernet.label_names == LABELS
    assert not supernet.fine_tuned


def test_a_run_goes_on_from_the_furthest_weights(world, task, folder, finished):
    job = replace(world.job(), model="deleted since")
    shutil.copytree(finished / "supernet", folder.finetuned)
    assert furthest_supernet(job, task, folder).fine_tuned
    shutil.copytree(finished / "supernet", folder.supernet)
    shutil.rmtree(folder.finetuned)
    assert furthest_supernet(job, task, folder).block_importance is not None


def test_all_stages_of_training_leave_one_supernet(world, task, folder):
    supernet = train(world.job(), task, folder)
    assert list(folder.seconds()) == ["finetune", "importance", "share"]
    assert supernet.fine_tuned
    assert not folder.finetuned.exists()
    assert torch.equal(weights_of(Supernet.load(folder.supernet).model), weights_of(supernet.model))


def test_weights_that_are_trained_are_not_trained_again(world, task, folder):
    train(world.job(), task, folder)
    before = weights_of(furthest_supernet(world.job(), task, folder).model)
    again = train(world.job(), task, folder)
    assert torch.equal(weights_of(again.model), before)


def test_training_that_goes_on_after_fine_tuning_ends_with_the_same_weights(
    world, task, folder, tmp_path_factory, monkeypatch
):
    unbroken = train(world.job(), task, RunFolder(tmp_path_factory.mktemp("unbroken")))

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "prepare", die)
        with pytest.raises(KeyboardInterrupt):
            train(world.job(), task, folder)
    assert folder.finetuned.is_dir()
    monkeypatch.setattr(FullTrainer, "train", die)  # it must not be called again
    assert torch.equal(weights_of(train(world.job(), task, folder).model), weights_of(unbroken.model))


def test_a_fine_tuned_checkpoint_is_not_fine_tuned_again(tuned_job, task, folder):
    train(tuned_job, task, folder)
    assert list(folder.seconds()) == ["importance", "share"]


def test_what_is_not_searched_is_not_trained(tuned_job, task, folder, monkeypatch):
    spaces = []
    monkeypatch.setattr(SandwichTrainer, "share", lambda self, *_, **__: spaces.append(self.space))
    train(replace(tuned_job, keep_last_layer=True), task, folder)
    assert spaces[0].smallest().layers[-1].num_attention_heads > 0


def test_a_fine_tuned_checkpoint_needs_no_training(tuned_job, task, folder):
    supernet = train(schedule(tuned_job, full_epochs=0, epochs=0), task, folder)
    assert list(folder.seconds()) == ["importance"]
    assert supernet.block_importance is not None


def test_a_checkpoint_without_a_classifier_needs_training(world, task, folder):
    with pytest.raises(
        CheckpointError, match=r"tiny-bert' has no trained classifier .* \(--full-epochs 1\)"
    ):
        furthest_supernet(schedule(world.job(), full_epochs=0, epochs=3), task, folder)


def test_a_loss_that_is_no_number_ends_the_training(world, task, folder):
    with pytest.raises(TrainingError, match=r"lower the learning rate \(learning_rate=1e\+30\)"):
        train(schedule(world.job(), learning_rate=1e30), task, folder)
    assert not folder.supernet.exists()


def test_the_last_training_changes_the_subnet_alone(world, task, folder, finished):
    supernet = Supernet.load(finished / "supernet")
    before = weights_of(supernet.model)
    subnet = finish_subnet(world.job(), supernet, SMALL, task, folder, progress=False)
    assert torch.equal(weights_of(supernet.model), before)
    assert not torch.equal(weights_of(subnet), weights_of(supernet.extract(SMALL)))


def test_without_a_last_training_the_subnet_is_repaired(world, task, folder, finished):
    supernet = Supernet.load(finished / "supernet")
    job = replace(schedule(world.job(), finish_epochs=0, repair_items=64), seed=3)
    subnet = finish_subnet(job, supernet, SMALL, task, folder, progress=False)
    wanted = supernet.extract(SMALL)
    SubnetRepairer(64, seed=3).repair(wanted, supernet, task.train)
    assert torch.equal(weights_of(subnet), weights_of(wanted))
    assert not torch.equal(weights_of(subnet), weights_of(supernet.extract(SMALL)))


def test_without_a_repair_either_the_subnet_is_extracted(world, task, folder, finished):
    supernet = Supernet.load(finished / "supernet")
    job = schedule(world.job(), finish_epochs=0, repair_items=0)
    subnet = finish_subnet(job, supernet, SMALL, task, folder, progress=False)
    assert torch.equal(weights_of(subnet), weights_of(supernet.extract(SMALL)))


def test_a_last_training_does_not_go_on_from_another_subnets(world, task, folder, finished, monkeypatch):
    # A run killed in its last training measures again, and may choose another subnet then.
    supernet = Supernet.load(finished / "supernet")
    _leave_a_checkpoint(world.job(), supernet, SMALL, task, folder, monkeypatch)
    assert len(list(folder.checkpoints.iterdir())) == 1
    finish_subnet(world.job(), supernet, SMALLER, task, folder, progress=False)
    assert list(folder.checkpoints.iterdir()) == []


def test_a_last_training_goes_on_from_its_own_checkpoint(world, task, folder, finished, monkeypatch):
    supernet = Supernet.load(finished / "supernet")
    _leave_a_checkpoint(world.job(), supernet, SMALL, task, folder, monkeypatch)
    checkpoint = next(folder.checkpoints.iterdir())
    checkpoint.write_bytes(b"damaged")  # so it shows whether it is read
    with pytest.raises(OSError, match=f"{checkpoint.name}' is damaged; delete it to train from the start"):
        finish_subnet(world.job(), supernet, SMALL, task, folder, progress=False)


def _leave_a_checkpoint(job, supernet, config, task, folder, monkeypatch):
    """Be interrupted in a last training that has saved its state."""
    steps = []

    def interrupt(loss, *_):
        steps.append(loss)
        if len(steps) == 3:
            raise KeyboardInterrupt

    optimisation = replace(training.optimisation(job, supernet, 1), checkpoint_seconds=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(training, "optimisation", lambda *_: optimisation)
        patch.setattr("rlnas.supernet.optimisation._check_finite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            finish_subnet(job, supernet, config, task, folder, progress=False)


@pytest.mark.parametrize(("hidden_size", "rate"), [(768, 5e-5), (384, 2e-4), (32, 5e-4)])
def test_the_usual_learning_rate_falls_with_the_width(hidden_size, rate):
    assert training.usual_learning_rate(hidden_size) == pytest.approx(rate)


def test_a_learning_rate_that_is_given_is_kept(world, finished):
    supernet = Supernet.load(finished / "supernet")
    assert (
        training.optimisation(schedule(world.job(), learning_rate=0.25), supernet, 1).learning_rate == 0.25
    )
    assert (
        training.optimisation(schedule(world.job(), learning_rate=None), supernet, 1).learning_rate == 5e-4
    )


def test_damaged_weights_of_a_run_are_named_with_the_remedy(world, task, folder):
    folder.supernet.mkdir()
    message = "supernet.*; delete '.*supernet' and add --resume to train them again"
    with pytest.raises(OSError, match=message):
        furthest_supernet(world.job(), task, folder)

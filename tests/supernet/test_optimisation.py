from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlnas.errors import RunFolderError, TrainingError
from rlnas.supernet import optimisation
from rlnas.supernet.importance import task_loss
from rlnas.supernet.optimisation import Optimisation, gains_from_bfloat16, optimise, precision_context

SETTINGS = Optimisation(epochs=2, batch_size=8, precision="float32")


@pytest.fixture
def bert(bert):
    """Without dropout: what is random here is the order of items."""
    for module in bert.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return bert


def weights_of(supernet):
    return {name: weight.clone() for name, weight in supernet.model.state_dict().items()}


def changed(before, supernet):
    """Names of the weights that are not what they were."""
    after = supernet.model.state_dict()
    return {name for name, weight in before.items() if not torch.equal(weight, after[name])}


def plain_backward(supernet, losses=None):
    def backward(batch, _step):
        loss = task_loss(supernet.model(batch.input_ids, batch.attention_mask).logits, batch.labels)
        loss.backward()
        if losses is not None:
            losses.append(loss.item())
        return loss.item()

    return backward


def train(supernet, settings=SETTINGS, backward=None, split=None, **arguments):
    encoded = supernet.encode(tiny.make_split(20) if split is None else split)
    backward = plain_backward(supernet) if backward is None else backward
    optimise(
        supernet.model, encoded, settings, backward, **({"label": "train", "progress": False} | arguments)
    )


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": -1}, "epochs must be at least 0, but got epochs=-1"),
        ({"batch_size": 0}, "batch_size must be at least 1, but got batch_size=0"),
        ({"micro_batches": 0}, "micro_batches must be at least 1, but got micro_batches=0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number of at least 0, but got .*=nan"),
        (
            {"head_learning_rate": -0.1},
            "head_learning_rate must be a number of at least 0, but got .*=-0.1",
        ),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be a number of at least 0, but got .*=-1.0"),
        ({"warmup_share": 1.5}, r"warmup_share must be in \[0, 1\], but got warmup_share=1.5"),
        (
            {"precision": "float16"},
            "precision must be auto, float32 or bfloat16, but got precision='float16'",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Optimisation(**settings)


@given(n_steps=st.integers(1, 300), share=st.floats(0, 1))
def test_the_rate_rises_to_its_peak_and_falls_towards_zero(n_steps, share):
    settings = Optimisation(warmup_share=share)
    rates = [settings.rate(step, n_steps) for step in range(n_steps)]
    peak = max(1, round(share * n_steps)) - 1
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[peak] == 1
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert settings.rate(n_steps, n_steps) == (1.0 if peak == n_steps else 0.0)


@pytest.mark.parametrize(
    ("amx", "avx512", "gains"),
    [(True, True, True), (True, False, True), (False, True, True), (False, False, False)],
)
def test_a_cpu_gains_from_bfloat16_by_its_own_units(monkeypatch, amx, avx512, gains):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert gains_from_bfloat16(torch.device("cpu")) is gains


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_gains_from_bfloat16_where_it_is_not_emulated(monkeypatch, supported):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation
    )
    assert gains_from_bfloat16(torch.device("cuda")) is supported


def test_other_devices_are_not_known_to_gain():
    assert not gains_from_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(
    ("precision", "gains", "is_on"),
    [("bfloat16", False, True), ("float32", True, False), ("auto", True, True), ("auto", False, False)],
)
def test_autocast_is_on_where_asked_for_or_gained_from(monkeypatch, precision, gains, is_on):
    monkeypatch.setattr(optimisation, "gains_from_bfloat16", lambda _device: gains)
    with precision_context(precision, torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") is is_on


# Training


def test_every_item_is_seen_once_per_epoch_and_in_another_order(bert):
    seen = []

    def backward(batch, step):
        seen.append((step, *batch.indices))
        return plain_backward(bert)(batch, step)

    train(bert, backward=backward)
    assert [step for step, *_ in seen] == list(range(6))
    epochs = [[index for _, *indices in seen[start : start + 3] for index in indices] for start in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(20))
    assert epochs[0] != epochs[1]


def test_the_loss_falls_and_every_weight_is_trained(bert):
    before, losses = weights_of(bert), []
    settings = Optimisation(epochs=12, batch_size=8, learning_rate=3e-3, precision="float32")
    train(bert, settings, plain_backward(bert, losses))
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert changed(before, bert) == set(before)


def test_frozen_embeddings_stay_bit_for_bit_and_the_rest_moves(supernet):
    before = weights_of(supernet)
    train(supernet, Optimisation(epochs=1, batch_size=8, freeze_embeddings=True))
    assert changed(before, supernet) == {name for name in before if not name.startswith("embeddings.")}


def test_frozen_embeddings_get_no_gradients_and_are_free_again_afterwards(bert):
    """The saving is in the backward pass, not in the step."""

    def backward(batch, step):
        loss = plain_backward(bert)(batch, step)
        assert all(parameter.grad is None for parameter in bert.model.embeddings.parameters())
        assert bert.model.layers[0].attention.query.weight.grad is not None
        return loss

    train(bert, Optimisation(epochs=1, batch_size=8, freeze_embeddings=True), backward)
    assert all(parameter.requires_grad for parameter in bert.model.parameters())


def test_no_epochs_change_nothing(bert, tmp_path):
    before = weights_of(bert)
    train(bert, Optimisation(epochs=0), checkpoint=tmp_path / "training.pt")
    assert changed(before, bert) == set()


def test_the_head_learns_at_a_rate_of_its_own(bert):
    before = weights_of(bert)
    train(
        bert,
        Optimisation(epochs=1, batch_size=20, learning_rate=0.0, weight_decay=0.0, head_learning_rate=1e-2),
    )
    assert changed(before, bert) == {name for name in before if name.startswith("head.")}


def test_matrices_decay_and_biases_and_norms_do_not(bert):
    """With a loss without gradients, decay is all that is left."""

    def backward(_batch, _step):
        for parameter in bert.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        return 0.0

    before = weights_of(bert)
    train(bert, Optimisation(epochs=1, batch_size=20, weight_decay=0.1), backward)
    assert changed(before, bert) == {name for name, weight in before.items() if weight.ndim > 1}


def test_gradients_are_scaled_down_to_the_largest_norm(bert, monkeypatch):
    norms, step = [], torch.optim.AdamW.step

    def recording(optimiser):
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        step(optimiser)

    monkeypatch.setattr(torch.optim.AdamW, "step", recording)
    train(bert, Optimisation(epochs=1, batch_size=8, max_grad_norm=0.25))
    assert norms == pytest.approx([0.25] * 3, rel=1e-3)


def test_equal_seeds_give_equal_weights_and_others_do_not(checkpoints, bert):
    start = weights_of(bert)
    results = []
    for seed in (3, 3, 4):
        bert.model.load_state_dict(start)
        torch.manual_seed(len(results))  # the state outside must not matter
        train(bert, Optimisation(epochs=1, batch_size=8, seed=seed, precision="float32"))
        results.append(weights_of(bert))
    bert.model.load_state_dict(results[0])
    assert changed(results[1], bert) == set()
    assert changed(results[2], bert) != set()


def test_the_random_numbers_outside_are_left_alone(bert):
    before = torch.get_rng_state()
    train(bert)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_under_bfloat16_runs_in_bfloat16_and_keeps_float32_weights(bert):
    seen = []

    def backward(batch, step):
        seen.append(bert.model.layers[0].ffn.inner(torch.zeros(1, tiny.HIDDEN)).dtype)
        return plain_backward(bert)(batch, step)

    before = weights_of(bert)
    train(bert, Optimisation(epochs=1, batch_size=8, precision="bfloat16"), backward)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in bert.model.parameters()} == {torch.float32}
    assert len(changed(before, bert)) == len(before)


@pytest.mark.parametrize("n_parts", [2, 3, 8, 9])
def test_micro_batches_take_the_step_of_the_whole_batch(bert, n_parts):
    """Also where the last batch has fewer items than parts."""
    for attention, _ in bert.blocks:
        attention.attention_dropout = 0.0
    start, seen = weights_of(bert), {}
    for parts in (1, n_parts):
        sizes = []

        def backward(batch, step, sizes=sizes):
            sizes.append((step, len(batch.labels)))
            return plain_backward(bert)(batch, step)

        bert.model.load_state_dict(start)
        settings = replace(SETTINGS, micro_batches=parts)
        split = tiny.make_split(18)  # batches of 8, 8 and 2
        losses = optimise(bert.model, bert.encode(split), settings, backward, label="train", progress=False)
        seen[parts] = losses
        assert len(sizes) == 2 * sum(min(parts, size) for size in (8, 8, 2))
    assert seen[n_parts] == pytest.approx(seen[1], rel=1e-5)


def test_training_ends_in_evaluation_mode_without_gradients(bert):
    def backward(batch, step):
        assert bert.model.training
        return plain_backward(bert)(batch, step)

    train(bert, backward=backward)
    assert not bert.model.training
    assert all(parameter.grad is None for parameter in bert.model.parameters())


def test_the_bar_shows_the_loss(bert, capsys):
    train(bert, label="teach", progress=True)
    shown = capsys.readouterr().err
    assert "teach: 100%" in shown
    assert "loss " in shown


# Pauses


@pytest.mark.parametrize("pauses", [(1, 3), (2, 2, 3), (0, 1, None)])
def test_a_training_with_pauses_is_the_training_without(bert, tmp_path, pauses):
    settings, path, start = (
        Optimisation(epochs=3, batch_size=8, precision="float32"),
        tmp_path / "a.pt",
        weights_of(bert),
    )
    train(bert, settings)
    whole, seen = weights_of(bert), []
    for pause in pauses:
        bert.model.load_state_dict(start)
        train(bert, settings, plain_backward(bert, seen), checkpoint=path, pause_after=pause)
        assert path.is_file() is (pause not in (0, None))
    assert changed(whole, bert) == set()
    assert len(seen) == 9  # no step is done twice


def test_a_pause_behind_the_end_keeps_the_checkpoint_of_the_end(bert, tmp_path):
    path = tmp_path / "training.pt"
    train(bert, checkpoint=path, pause_after=5)
    ended = weights_of(bert)
    train(bert, backward=lambda *_: pytest.fail("all is done"), checkpoint=path, pause_after=5)
    assert changed(ended, bert) == set()


def test_a_pause_needs_a_checkpoint(bert):
    with pytest.raises(ValueError, match="pause_after=1 needs a checkpoint to go on from; give one"):
        train(bert, pause_after=1)


# What goes wrong


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_before_it_spoils_the_weights(bert, value):
    at_step_2 = {}

    def backward(batch, step):
        if step == 2:
            at_step_2.update(weights_of(bert))
            return value
        return plain_backward(bert)(batch, step)

    with pytest.raises(
        TrainingError,
        match=rf"the loss became {value} at step 2 of 'train'; lower the learning rate "
        r"\(learning_rate=0.0001\) or check the labels",
    ):
        train(bert, backward=backward)
    assert changed(at_step_2, bert) == set()
    assert not bert.model.training


def test_a_gradient_that_is_not_finite_ends_the_training_too(bert):
    """The loss shown may be finite where that of a student is not."""

    def backward(batch, step):
        loss = plain_backward(bert)(batch, step)
        bert.model.head.out.bias.grad[0] = float("nan")
        return loss

    before = weights_of(bert)
    with pytest.raises(TrainingError, match="the gradient became nan at step 0 of 'train'"):
        train(bert, backward=backward)
    assert changed(before, bert) == set()


def test_nan_weights_end_the_training(bert):
    bert.model.head.out.weight.data[0] = float("nan")
    with pytest.raises(TrainingError, match="the loss became nan at step 0"):
        train(bert)


# Checkpoints


@pytest.mark.parametrize("text", [b"", b"no checkpoint at all", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_refused(bert, tmp_path, text):
    path = tmp_path / "training.pt"
    path.write_bytes(text)
    with pytest.raises(
        RunFolderError, match=rf"the training checkpoint '{path}' is damaged; delete it to train"
    ):
        train(bert, checkpoint=path)


def test_a_checkpoint_of_another_model_is_refused(bert, tmp_path):
    path = tmp_path / "training.pt"
    torch.save({"model": {"weight": torch.zeros(2)}, "optimiser": {}, "step": 3}, path)
    with pytest.raises(RunFolderError, match="is damaged; delete it to train from the start"):
        train(bert, checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_reported(bert, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    settings = Optimisation(epochs=1, batch_size=8, checkpoint_seconds=0.0)
    with pytest.raises(
        RunFolderError, match=r"cannot write the training checkpoint '.*taken/training\.pt'"
    ):
        train(bert, settings, checkpoint=tmp_path / "taken" / "training.pt")


def test_checkpoints_are_written_no_more_often_than_asked_and_removed_at_the_end(bert, tmp_path):
    path, seen = tmp_path / "new" / "training.pt", []

    def backward(batch, step):
        seen.append(path.is_file())
        return plain_backward(bert)(batch, step)

    train(bert, Optimisation(epochs=2, batch_size=8, checkpoint_seconds=0.0), backward, checkpoint=path)
    assert seen == [False, True, True, True, True, True]
    assert list(path.parent.iterdir()) == []
    seen.clear()
    train(bert, Optimisation(epochs=2, batch_size=8, checkpoint_seconds=3600.0), backward, checkpoint=path)
    assert seen == [False] * 6


def test_a_training_goes_on_after_its_last_checkpoint_with_the_same_items(bert, tmp_path):
    path, steps, moments = tmp_path / "training.pt", [], [4]
    settings = Optimisation(epochs=2, batch_size=8, checkpoint_seconds=0.0, precision="float32")

    def backward(batch, step):
        if step in moments:
            moments.remove(step)
            raise InterruptedError
        steps.append((step, *batch.indices))
        return plain_backward(bert)(batch, step)

    start = weights_of(bert)
    with pytest.raises(InterruptedError):
        train(bert, settings, backward, checkpoint=path)
    assert path.is_file()
    bert.model.load_state_dict(start)
    train(bert, settings, backward, checkpoint=path)
    broken, resumed = weights_of(bert), list(steps)
    assert [step for step, *_ in resumed] == [0, 1, 2, 3, 4, 5]
    steps.clear()
    bert.model.load_state_dict(start)
    train(bert, settings, backward)
    assert steps == resumed
    assert changed(broken, bert) == set()


# A watch


class Counting:
    """A watch that ends the training after some steps, and counts what it sees."""

    def __init__(self, end):
        self.end, self.seen = end, []

    @property
    def is_over(self):
        return len(self.seen) > self.end

    def after(self, n_done, n_batches):
        self.seen.append((n_done, n_batches))

    def state_dict(self):
        return {"seen": [list(pair) for pair in self.seen]}

    def load_state_dict(self, state):
        self.seen = [tuple(pair) for pair in state["seen"]]


def test_a_watch_looks_before_the_first_step_and_after_each(bert):
    watch = Counting(end=99)
    train(bert, watch=watch)
    assert watch.seen == [(step, 3) for step in range(7)]


def test_a_watch_sees_the_model_in_evaluation_mode_and_the_training_goes_on_in_its_own(bert):
    modes, watch = [], Counting(end=99)
    watch.after = lambda *_: modes.append(bert.model.training)

    def backward(batch, step):
        assert bert.model.training
        return plain_backward(bert)(batch, step)

    train(bert, backward=backward, watch=watch)
    assert modes == [False] * 7


def test_a_watch_ends_the_training(bert):
    watch, losses = Counting(end=4), []
    train(bert, backward=plain_backward(bert, losses), watch=watch)
    assert len(losses) == 4


@pytest.mark.parametrize("moment", [1, 3, 4])
def test_what_a_watch_has_seen_belongs_to_the_checkpoint(bert, tmp_path, moment):
    settings = Optimisation(epochs=2, batch_size=8, checkpoint_seconds=0.0, precision="float32")
    moments = [moment]

    def backward(batch, step):
        if step in moments:
            moments.remove(step)
            raise InterruptedError
        return plain_backward(bert)(batch, step)

    with pytest.raises(InterruptedError):
        train(bert, settings, backward, checkpoint=tmp_path / "t.pt", watch=Counting(end=5))
    watch = Counting(end=5)
    train(bert, settings, backward, checkpoint=tmp_path / "t.pt", watch=watch)
    assert watch.seen == [(step, 3) for step in range(6)]


def test_a_checkpoint_without_what_the_watch_has_seen_is_refused(bert, tmp_path):
    settings = Optimisation(epochs=1, batch_size=8, checkpoint_seconds=0.0)

    def backward(batch, step):
        if step == 2:
            raise InterruptedError
        return plain_backward(bert)(batch, step)

    with pytest.raises(InterruptedError):
        train(bert, settings, backward, checkpoint=tmp_path / "t.pt")
    with pytest.raises(RunFolderError, match="is damaged; delete it to train from the start: 'watch'"):
        train(bert, settings, backward, checkpoint=tmp_path / "t.pt", watch=Counting(end=5))

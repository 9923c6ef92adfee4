from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from rlnas.errors import EvaluationError
from rlnas.supernet import looks as looking
from rlnas.supernet.looks import Looks, difference_error, share_right


def looks_of(bert, scores, **arguments):
    """Looks that find these scores."""
    found = iter(scores)
    encoded = bert.encode(tiny.make_split(6))
    return Looks(bert.model, encoded, lambda *_: next(found), **arguments)


def look_on(looks, model, n):
    """Look n times, with other weights each time."""
    for number in range(n):
        model.head.out.bias.data.fill_(float(number))
        looks.after(number, 1)


def test_the_share_of_right_answers_is_judged_by_default(bert):
    split = tiny.make_split(20)
    looks = Looks(bert.model, bert.encode(split))
    looks.after(0, 4)
    answers = bert.model(**tiny.hf_inputs(batch := tiny.one_batch(bert, split))).logits.argmax(dim=1)
    assert looks.accuracies == [pytest.approx((answers == batch.labels).float().mean().item())]
    assert share_right(split.labels, split.labels) == 1


@pytest.mark.parametrize(
    ("n_batches", "per_epoch", "moments"),
    [(4, 1, [0, 4, 8]), (4, 2, [0, 2, 4, 6, 8]), (3, 2, [0, 2, 3, 5, 6]), (2, 5, [0, 1, 2, 3, 4])],
)
def test_looks_are_spread_evenly_over_each_pass(bert, n_batches, per_epoch, moments):
    looks, seen = looks_of(bert, range(100), per_epoch=per_epoch), []
    for step in range(2 * n_batches + 1):
        before = len(looks.accuracies)
        looks.after(step, n_batches)
        seen += [step] * (len(looks.accuracies) > before)
    assert seen == moments


def test_it_is_over_after_as_many_looks_without_gain(bert):
    looks = looks_of(bert, [0.5, 0.7, 0.7, 0.6], patience=2)
    is_over = []
    for step in range(4):
        looks.after(step, 1)
        is_over.append(looks.is_over)
    assert is_over == [False, False, False, True]
    assert looks.best == 1


def test_without_a_patience_it_is_never_over_and_the_last_weights_stay(bert):
    looks = looks_of(bert, [0.5, 0.4, 0.3])
    look_on(looks, bert.model, 3)
    looks.restore_kept()
    assert not looks.is_over
    assert (looks.best, looks.kept) == (0, 2)
    assert bert.model.head.out.bias.tolist() == [2.0] * 3


def test_the_weights_of_the_best_look_come_back(bert):
    looks = looks_of(bert, [0.5, 0.7, 0.6], patience=9)
    look_on(looks, bert.model, 3)
    looks.restore_kept()
    assert bert.model.head.out.bias.tolist() == [1.0] * 3


def test_a_later_look_that_is_worse_within_noise_is_kept(bert, monkeypatch):
    monkeypatch.setattr(looking, "difference_error", lambda *_: 0.05)
    looks = looks_of(bert, [0.5, 0.72, 0.70, 0.68, 0.66], patience=9)
    look_on(looks, bert.model, 5)
    looks.restore_kept()
    assert (looks.best, looks.kept) == (
        1,
        3,
    )  # the last is near the one before, not the best
    assert bert.model.head.out.bias.tolist() == [3.0] * 3


def test_a_look_that_is_no_number_is_passed_over(bert):
    looks = looks_of(bert, [float("nan"), 0.5, float("nan")], patience=9)
    look_on(looks, bert.model, 3)
    looks.restore_kept()
    assert (looks.best, looks.kept) == (1, 1)
    assert bert.model.head.out.bias.tolist() == [1.0] * 3


def test_the_noise_of_a_difference_is_that_of_the_items_answered_differently():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=2000)
    one, other = labels.copy(), labels.copy()
    one[:100] = 1 - one[:100]
    other[60:160] = 1 - other[60:160]  # right on 60 that the first gets wrong, and the other way round
    assert difference_error(share_right, labels, one, other) == pytest.approx(120**0.5 / 2000, rel=0.15)
    assert difference_error(share_right, labels, one, one.copy()) == 0


def test_what_was_seen_goes_into_a_checkpoint_and_back(bert, tmp_path):
    looks = looks_of(bert, [0.5, 0.7, 0.6], patience=2)
    look_on(looks, bert.model, 3)
    torch.save(looks.state_dict(), tmp_path / "looks.pt")
    again = looks_of(bert, [0.2], patience=2)
    again.load_state_dict(torch.load(tmp_path / "looks.pt", weights_only=True))
    assert (again.accuracies, again.best, again.kept, again.is_over) == ([0.5, 0.7, 0.6], 1, 1, False)
    again.after(3, 1)
    assert again.is_over
    again.restore_kept()
    assert bert.model.head.out.bias.tolist() == [1.0] * 3


def test_answers_that_are_no_numbers_end_it(bert):
    bert.model.head.out.bias.data.fill_(float("nan"))
    with pytest.raises(EvaluationError, match="6 of 6 predictions of the model in training are not finite"):
        looks_of(bert, [0.5]).after(0, 1)

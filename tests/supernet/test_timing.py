from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from rlnas.errors import CheckpointError, DeviceError, InvalidSubnetError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet import Supernet
from rlnas.supernet.timing import TimedModel, TimedPrecisions, example_inputs, inference_calls
from rlnas.workload import Workload

WORKLOAD = Workload(batch_size=2, seq_len=9)


def test_example_inputs_have_the_shape_of_the_workload_and_no_padding():
    (inputs,) = example_inputs(30000, WORKLOAD, "cpu")
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (2, 9)
    assert inputs["attention_mask"].all()
    assert inputs["input_ids"].min() >= 1000  # none of the special tokens
    assert inputs["input_ids"].max() < 30000


def test_example_inputs_are_always_the_same():
    first = example_inputs(30000, WORKLOAD, "cpu")[0]["input_ids"]
    torch.manual_seed(7)
    assert torch.equal(first, example_inputs(30000, WORKLOAD, "cpu")[0]["input_ids"])
    assert first.unique().numel() > 1


def test_small_vocabularies_have_example_inputs_too(supernet):
    ids = example_inputs(supernet.model.config.vocab_size, WORKLOAD, "cpu")[0]["input_ids"]
    assert 0 < ids.min() <= ids.max() < supernet.model.config.vocab_size


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_call_runs_the_whole_subnet_in_the_workloads_format(supernet, dtype):
    workload = Workload(batch_size=2, seq_len=9, dtype=dtype)
    model, config = TimedModel(supernet, workload), tiny.random_configs(supernet, 3)[2]
    (call,) = model.model_calls(config)
    logits = call()
    assert logits.dtype == getattr(torch, dtype)
    assert logits.shape == (2, 3)
    assert logits.is_inference()
    extracted = supernet.extract(config).to(logits.dtype)
    with torch.inference_mode():
        expected = extracted(**example_inputs(supernet.model.config.vocab_size, workload, "cpu")[0]).logits
    assert torch.equal(logits, expected)


def record_linears(monkeypatch):
    """Shapes of the weights and the inputs of every matrix product."""
    seen, linear = [], torch.nn.functional.linear

    def recording(inputs, weight, bias=None):
        seen.append((tuple(inputs.shape), tuple(weight.shape), weight.is_contiguous()))
        return linear(inputs, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", recording)
    return seen


@pytest.mark.parametrize(
    ("kind", "size", "shapes"),
    [
        ("attention", 3, [((2, 9, 32), (24, 32))] * 3 + [((2, 9, 24), (32, 24))]),
        ("ffn", 12, [((2, 9, 32), (12, 32)), ((2, 9, 12), (32, 12))]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_block_call_runs_a_stack_of_that_block_at_its_size(
    supernet, monkeypatch, kind, size, shapes, dtype
):
    workload = Workload(batch_size=2, seq_len=9, dtype=dtype)
    model = TimedModel(supernet, workload)
    (call,) = model.block_calls(kind, size)
    seen = record_linears(monkeypatch)
    hidden = call()
    assert model.stack_size == tiny.NUM_LAYERS
    assert [(inputs, weight) for inputs, weight, _ in seen] == shapes * model.stack_size
    assert all(contiguous for _, _, contiguous in seen)
    assert hidden.shape == (2, 9, tiny.HIDDEN)
    assert hidden.dtype == getattr(torch, dtype)
    assert torch.isfinite(hidden).all()


def test_calls_give_the_same_each_time(bert):
    (call,) = TimedModel(bert, WORKLOAD).block_calls("ffn", 5)
    assert torch.equal(call(), call())


def test_timing_leaves_the_supernet_as_it_is(bert):
    before = {name: weight.clone() for name, weight in bert.model.state_dict().items()}
    model = TimedModel(bert, Workload(seq_len=9, dtype="bfloat16"))
    model.model_calls(bert.shape.full)[0]()
    model.block_calls("attention", 2)[0]()
    after = bert.model.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


def test_even_a_subnet_without_layers_can_be_timed(bert):
    model = TimedModel(bert, WORKLOAD)
    assert model.shape == bert.shape
    empty = SubnetConfig((LayerConfig(0, 0),) * tiny.NUM_LAYERS)
    assert model.model_calls(empty)[0]().shape == (2, 3)


def test_each_subnet_is_timed_in_its_precision(bert):
    models = TimedPrecisions(bert, WORKLOAD, ("float32", "bfloat16"))
    full = bert.shape.full
    dtypes = [
        models.model_calls(replace(full, precision=precision))[0]().dtype
        for precision in (None, "float32", "bfloat16")
    ]
    assert dtypes == [torch.float32, torch.float32, torch.bfloat16]
    assert (models.shape, models.stack_size) == (bert.shape, tiny.NUM_LAYERS)
    assert models.block_calls("ffn", 5)[0]().dtype == torch.float32
    with pytest.raises(InvalidSubnetError, match="float32, bfloat16 here, but got precision='int8'"):
        models.model_calls(replace(full, precision="int8"))


def test_another_kind_of_block_is_refused(bert):
    with pytest.raises(ValueError, match="kind must be 'attention' or 'ffn', but got kind='pooler'"):
        TimedModel(bert, WORKLOAD).block_calls("pooler", 1)


def test_texts_beyond_the_checkpoints_positions_are_refused(checkpoints, family):
    supernet = Supernet.from_pretrained(checkpoints[family], tiny.make_task())
    (full,) = TimedModel(supernet, Workload(seq_len=tiny.POSITIONS)).model_calls(supernet.shape.full)
    assert full().shape == (1, 3)
    with pytest.raises(
        CheckpointError, match="positions for 40 tokens at most, but the workload has seq_len=41"
    ):
        TimedModel(supernet, Workload(seq_len=tiny.POSITIONS + 1))


def test_a_mix_has_one_call_for_each_request_with_its_padding(bert):
    mix = Workload(batch_size=2, seq_len=12, lengths=(4, 4, 12))
    inputs = example_inputs(100, mix, "cpu")
    assert [tuple(one["attention_mask"].sum(dim=1).tolist()) for one in inputs] == list(mix.requests)
    calls = TimedModel(bert, mix).model_calls(bert.shape.full)
    assert [call().shape for call in calls] == [(2, 3)] * len(mix.requests)
    stacks = TimedModel(bert, mix).block_calls("attention", 1)
    widths = [max(request) for request in mix.requests]
    assert [call().shape for call in stacks] == [(2, width, tiny.HIDDEN) for width in widths]


def test_padding_changes_nothing_that_is_not_padded(bert):
    mix = Workload(batch_size=2, seq_len=12, lengths=(4, 12))
    requests = example_inputs(bert.model.config.vocab_size, mix, "cpu")
    inputs = next(one for one in requests if one["attention_mask"].sum() == 16)
    alone = {name: values[1:, :4] for name, values in inputs.items()}
    with torch.inference_mode():
        padded, short = bert.model(**inputs).logits[1], bert.model(**alone).logits[0]
    assert torch.allclose(padded, short, atol=1e-5)


def test_any_module_can_be_run_on_a_workload(bert):
    module = bert.model
    (call,) = inference_calls(module, WORKLOAD, "cpu", module.config.vocab_size)
    assert call().shape == (2, 3)


def test_a_mode_that_the_device_does_not_have_is_refused_at_once(bert):
    with pytest.raises(DeviceError, match="mode='cuda_graph' needs a CUDA device, but got device='cpu'"):
        TimedModel(bert, Workload(1, 9, mode="cuda_graph"))

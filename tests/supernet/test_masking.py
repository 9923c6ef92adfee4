from __future__ import annotations

import tiny
import torch

from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.masking import masked_forward

CONFIG = SubnetConfig((LayerConfig(2, 12), LayerConfig(0, 30), LayerConfig(1, 0)))


def overwrite_what_is_not_kept(supernet, value):
    head_size = supernet.model.config.head_size
    with torch.no_grad():
        for (attention, ffn), kept in zip(supernet.blocks, CONFIG.layers, strict=True):
            inner, units = kept.num_attention_heads * head_size, kept.intermediate_size
            for linear in (attention.query, attention.key, attention.value):
                linear.weight[inner:], linear.bias[inner:] = value, value
            attention.output.weight[:, inner:] = value
            ffn.inner.weight[units:], ffn.inner.bias[units:], ffn.outer.weight[:, units:] = (
                value,
                value,
                value,
            )
            for block, size in ((attention, inner), (ffn, units)):
                if size == 0:
                    for parameter in block.parameters():
                        parameter.fill_(value)


def test_masks_hide_whatever_the_dropped_weights_hold(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    with torch.inference_mode():
        before = masked_forward(supernet, CONFIG, batch)
        overwrite_what_is_not_kept(supernet, 7.0)
        assert torch.equal(masked_forward(supernet, CONFIG, batch), before)


def test_slices_do_not_even_read_the_dropped_weights(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    with torch.inference_mode():
        before = supernet.forward(CONFIG, batch)
        overwrite_what_is_not_kept(supernet, float("nan"))
        assert torch.equal(supernet.forward(CONFIG, batch), before)


def test_nothing_masked_is_the_full_model(supernet):
    batch = tiny.padded_batch(supernet, tiny.make_split(4))
    with torch.inference_mode():
        full = supernet.model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
        assert torch.equal(masked_forward(supernet, supernet.shape.full, batch), full)

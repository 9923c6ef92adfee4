"""Files for texts of any number and length."""

from __future__ import annotations

import pytest
import torch
from models import CASES, Refused

from rlnas.errors import DeviceError
from rlnas.runtime.onnx_model import OnnxModel, write_onnx

pytest.importorskip("onnxruntime")


def test_texts_of_other_numbers_and_lengths_are_answered_as_by_the_module(tmp_path):
    module, _ = CASES["subnet"]()
    write_onnx(module, tmp_path / "model.onnx")
    served = OnnxModel(tmp_path / "model.onnx")
    for shape in ((1, 3), (3, 11)):
        ids = torch.randint(1, 9, shape)
        mask = torch.ones_like(ids)
        mask[-1, -1] = 0
        found = served.logits({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        with torch.inference_mode():
            torch.testing.assert_close(
                torch.from_numpy(found), module(ids, mask).logits, atol=1e-5, rtol=1e-4
            )


def test_a_module_that_cannot_be_exported_is_refused_by_name(tmp_path):
    with pytest.raises(DeviceError, match=r"a Refused could not be written as model.onnx \("):
        write_onnx(Refused(), tmp_path / "model.onnx")


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_text("no model")
    with pytest.raises(DeviceError, match=r"ONNX Runtime does not take '.*model.onnx'"):
        OnnxModel(tmp_path / "model.onnx")

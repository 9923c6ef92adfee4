"""An ONNX file answers requests of any batch and length as the model does."""

from __future__ import annotations

import copy
import errno
import importlib.util

import numpy as np
import pytest
import torch

from rlnas.deploy import onnx_file
from rlnas.deploy.agreement import example_request
from rlnas.deploy.onnx_file import OnnxModel, write_onnx
from rlnas.errors import CheckpointError, ExportError, MissingDependencyError, RunFolderError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.supernet import Supernet

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))
ROUNDING = 1e-4  # the weights are wide, and so are the logits
SHAPES = ((1, 1), (4, 1), (1, 20), (2, 9), (5, 13))


def arrays(request):
    return {name: tensor.numpy() for name, tensor in request.items()}


def gap(runner, module, shape):
    request = example_request(module, *shape)
    with torch.inference_mode():
        expected = module(**request).logits.numpy()
    return np.abs(runner(**arrays(request)) - expected).max()


@pytest.fixture(scope="module")
def stock(classifier):
    return classifier("bert")


@pytest.fixture(scope="module")
def stock_file(stock, tmp_path_factory):
    return write_onnx(stock, tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.mark.parametrize(("family", "pooling"), [("roberta", "mean"), ("electra", "cls")])
def test_a_subnet_with_dropped_blocks_answers_any_shape(checkpoint, task, tmp_path, family, pooling):
    supernet = Supernet.from_pretrained(checkpoint(family, task), task, max_seq_len=20, pooling=pooling)
    subnet = supernet.extract(SUBNET)
    runner = OnnxModel(write_onnx(subnet, tmp_path / "model.onnx"))
    assert max(gap(runner, subnet.eval(), shape) for shape in SHAPES) <= ROUNDING
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_stock_classifier_answers_any_shape(stock, stock_file):
    assert max(gap(OnnxModel(stock_file), stock, shape) for shape in SHAPES) <= ROUNDING


def test_a_model_without_token_types_takes_none(classifier, tmp_path):
    module = classifier("distilbert")
    runner = OnnxModel(write_onnx(module, tmp_path / "model.onnx"))
    assert runner.input_names == ("input_ids", "attention_mask")
    assert max(gap(runner, module, shape) for shape in SHAPES) <= ROUNDING


def test_padding_is_not_seen(stock_file):
    runner = OnnxModel(stock_file)
    ids = np.array([[2, 7, 9, 3]])
    padded = np.array([[2, 7, 9, 3, 8, 8]])  # other tokens than padding, but masked
    mask = np.array([[1, 1, 1, 1, 0, 0]])
    np.testing.assert_allclose(runner(padded, mask), runner(ids, np.ones_like(ids)), atol=1e-5)


def test_token_types_are_zero_unless_given(stock_file):
    runner = OnnxModel(stock_file)
    ids = np.array([[2, 7, 9, 3]], dtype=np.int32)
    ones = np.ones_like(ids)
    assert runner.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert (runner(ids, ones) == runner(ids, ones, 0 * ids)).all()
    assert (runner(ids, ones) != runner(ids, ones, ones)).any()


@pytest.fixture
def copied(stock_file, monkeypatch):
    """Instead of exporting, which takes seconds, copy the file of `stock`; holds how it was asked for."""
    asked = {}

    def write(module, request, path, **how):
        asked.update(how)
        path.write_bytes(stock_file.read_bytes())
        path.with_name("model.onnx.data").write_bytes(b"weights")

    monkeypatch.setattr(onnx_file, "write_graph", write)
    return asked


def test_only_weights_beyond_one_file_lie_beside_it(stock, copied, tmp_path, monkeypatch):
    write_onnx(stock, tmp_path / "model.onnx")
    assert copied["external_data"] is False
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 1000)
    write_onnx(stock, tmp_path / "model.onnx")
    assert copied["external_data"] is True


def test_a_file_that_computes_something_else_does_not_stay(stock, copied, tmp_path):
    another = copy.deepcopy(stock)
    another.classifier.bias.data += 1.0
    with pytest.raises(ExportError, match=r"the ONNX file 'model.onnx' does not compute .* differs by 1;"):
        write_onnx(another, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_traced_is_refused_by_name(stock, tmp_path, monkeypatch):
    monkeypatch.setattr(type(stock), "forward", lambda self, **_: 1 / 0)
    with pytest.raises(
        ExportError, match=r"a BertForSequenceClassification could not be brought to ONNX \("
    ):
        write_onnx(stock, tmp_path / "model.onnx")


def test_a_folder_that_is_missing_is_named(stock, copied, tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot write '.*none/model.onnx' \(No such file"):
        write_onnx(stock, tmp_path / "none" / "model.onnx")


def test_a_full_disk_leaves_nothing(stock, tmp_path, monkeypatch):
    def fill(module, request, path, **how):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(onnx_file, "write_graph", fill)
    with pytest.raises(RunFolderError, match=r"cannot write '.*model.onnx' \(No space left on device\)"):
        write_onnx(stock, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no ONNX file '.*none.onnx'; write one"):
        OnnxModel(tmp_path / "none.onnx")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(
        CheckpointError, match=r"cannot read the ONNX file '.*bad.onnx' \(.*\); write it again"
    ):
        OnnxModel(tmp_path / "bad.onnx")


def test_a_request_that_is_too_long_is_refused(stock_file, capfd):
    long = np.full((1, 41), 7)
    with pytest.raises(CheckpointError, match=r"ONNX Runtime refuses a request of shape \(1, 41\)"):
        OnnxModel(stock_file)(long, np.ones_like(long))
    capfd.readouterr()


@pytest.mark.parametrize("absent", ["onnx", "onnxruntime"])
def test_absent_packages_are_named_with_the_command_that_installs_them(
    stock, tmp_path, monkeypatch, absent
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else name)
    message = rf"^writing ONNX needs {absent}; install with: pip install 'rlnas\[onnx\]'$"
    with pytest.raises(MissingDependencyError, match=message):
        write_onnx(stock, tmp_path / "model.onnx")


def test_running_needs_no_exporter(stock_file, monkeypatch):
    real = importlib.util.find_spec
    hidden = ("onnx", "onnxscript")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else real(name))
    assert OnnxModel(stock_file).input_names[0] == "input_ids"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"^running ONNX needs onnxruntime; "):
        OnnxModel(stock_file)

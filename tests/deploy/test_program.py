"""A program of torch.export answers requests of any batch and length as the model does."""

from __future__ import annotations

import copy
import errno
import io
import zipfile
from pathlib import Path

import pytest
import torch

from rlnas.deploy import program
from rlnas.deploy.agreement import example_request
from rlnas.deploy.program import LogitsOnly, write_program
from rlnas.errors import ExportError, RunFolderError
from rlnas.space import LayerConfig, SubnetConfig
from rlnas.supernet.supernet import Supernet

SUBNET = SubnetConfig((LayerConfig(1, 24), LayerConfig(0, 0), LayerConfig(2, 0)))


@pytest.fixture(scope="module")
def subnet(checkpoint, task):
    folder = checkpoint("roberta", task)
    return Supernet.from_pretrained(folder, task, max_seq_len=20, pooling="mean").extract(SUBNET).eval()


@pytest.fixture(scope="module")
def file(subnet, tmp_path_factory):
    return write_program(subnet, tmp_path_factory.mktemp("program") / "program.pt2")


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 20), (5, 13)])
def test_a_subnet_with_dropped_blocks_answers_any_shape(subnet, file, shape):
    request = example_request(subnet, *shape)
    with torch.inference_mode():
        found = torch.export.load(file).module()(**request)
        torch.testing.assert_close(found, subnet(**request).logits)


def test_no_file_names_a_folder_of_this_machine(file):
    with zipfile.ZipFile(file) as parts:
        text = b"".join(parts.read(name) for name in parts.namelist())
    assert b"site-packages" not in text
    assert str(file.parent).encode() not in text


def test_a_program_that_computes_something_else_does_not_stay(subnet, file, tmp_path, monkeypatch):
    another = copy.deepcopy(subnet)
    another.head.out.bias.data += 1.0
    monkeypatch.setattr(program, "_write", lambda _, path: path.write_bytes(file.read_bytes()))
    with pytest.raises(ExportError, match=r"the program 'program.pt2' does not compute .* differs by 1;"):
        write_program(another, tmp_path / "program.pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_traced_is_refused_by_name(subnet, tmp_path, monkeypatch):
    monkeypatch.setattr(type(subnet), "forward", lambda self, **_: 1 / 0)
    with pytest.raises(ExportError, match=r"a SubnetModel could not be brought to torch.export \("):
        write_program(subnet, tmp_path / "program.pt2")


def test_a_folder_that_is_missing_is_named(subnet, file, tmp_path, monkeypatch):
    monkeypatch.setattr(program, "_traced", lambda _: torch.export.load(file))
    with pytest.raises(RunFolderError, match=r"cannot write '.*none/program.pt2' \(.*; choose a folder"):
        write_program(subnet, tmp_path / "none" / "program.pt2")


def test_a_full_disk_leaves_nothing(subnet, file, tmp_path, monkeypatch):
    def fill(path, _):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(program, "_traced", lambda _: torch.export.load(file))
    monkeypatch.setattr(Path, "write_bytes", fill)
    with pytest.raises(RunFolderError, match=r"cannot write '.*program.pt2' \(No space left on device\)"):
        write_program(subnet, tmp_path / "program.pt2")
    assert list(tmp_path.iterdir()) == []


def test_torch_writes_to_memory_as_on_a_full_disk_its_writer_ends_the_process(file, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(program, "_traced", lambda _: torch.export.load(file))
    monkeypatch.setattr(torch.export, "save", lambda _, place: asked.append(type(place)))
    program._write(None, tmp_path / "program.pt2")
    assert asked == [io.BytesIO]


def test_token_types_reach_the_model(classifier):
    model = classifier("bert")
    request = example_request(model, 2, 9)
    with torch.inference_mode():
        torch.testing.assert_close(LogitsOnly(model)(**request), model(**request).logits)
        del request["token_type_ids"]
        torch.testing.assert_close(LogitsOnly(model)(**request), model(**request).logits)

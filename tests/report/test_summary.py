"""A summary is read whole, or refused with what is wrong and what to do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from rlnas.errors import RunFolderError
from rlnas.report.summary import models_of, read_summary

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, values: object) -> Path:
    (folder / "summary.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_a_sound_summary_is_returned_as_it_is(tmp_path: Path, summary: dict[str, Any]):
    assert read_summary(write(tmp_path, summary)) == json.loads(json.dumps(summary))


def test_an_unfinished_run_is_told_to_resume(tmp_path: Path):
    message = f"'{tmp_path}' holds no summary.json, so there is no finished run in it; end the search"
    with pytest.raises(RunFolderError, match=f"{re.escape(message)} .* --resume"):
        read_summary(tmp_path)


def test_a_file_that_is_no_json_is_refused(tmp_path: Path):
    (tmp_path / "summary.json").write_text('{"model": ', encoding="utf-8")
    with pytest.raises(RunFolderError, match=r"summary\.json is damaged: it is no JSON, .*--resume"):
        read_summary(tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "summary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunFolderError, match=r"summary\.json is damaged: it is no JSON"):
        read_summary(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "summary.json").write_text("{}")

    def fail(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", fail)
    with pytest.raises(RunFolderError, match=r"cannot read .*summary\.json \(Permission denied\)"):
        read_summary(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("best", "accuracy"), "high", r"best\.accuracy has the wrong type, 'high'"),
        (("best", "accuracy"), True, r"best\.accuracy has the wrong type, True"),
        (("best", "config"), {"layers": []}, r"best\.config is no subnet \(.*layers is empty"),
        (("full", "accuracy_ci"), [0.1], r"full\.accuracy_ci is no pair of numbers but \[0\.1\]"),
        (("loss_ci",), ["a", "b"], r"loss_ci is no pair of numbers but \['a', 'b'\]"),
        (("pareto",), {}, r"pareto is no list but \{\}"),
        (("pareto", 0), 3, r"pareto\[0\] is no object but 3"),
        (("task",), "sst2", r"task is no object but 'sst2'"),
    ],
)
def test_a_wrong_value_is_named(
    tmp_path: Path, summary: dict[str, Any], path: tuple[Any, ...], value: object, message: str
):
    place: Any = summary
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RunFolderError, match=rf"is damaged: {message}"):
        read_summary(write(tmp_path, summary))


@pytest.mark.parametrize("name", ["model", "full", "best", "latency_ratio", "loss_ci", "seconds"])
def test_a_missing_value_is_named(tmp_path: Path, summary: dict[str, Any], name: str):
    del summary[name]
    with pytest.raises(RunFolderError, match=f"is damaged: {name} is missing; delete it"):
        read_summary(write(tmp_path, summary))


def test_a_summary_that_is_no_object_is_refused(tmp_path: Path):
    with pytest.raises(RunFolderError, match=r"is damaged: it is no object but \[1\]"):
        read_summary(write(tmp_path, [1]))


def test_a_sound_summary_of_several_targets_is_returned_as_it_is(tmp_path: Path, several: dict[str, Any]):
    assert read_summary(write(tmp_path, several)) == json.loads(json.dumps(several))


def test_damaged_targets_are_named(tmp_path: Path, several: dict[str, Any]):
    del several["targets"][1]["best"]
    with pytest.raises(RunFolderError, match=r"damaged: targets\[1\]\.best is missing; delete it"):
        read_summary(write(tmp_path, several))
    several["targets"] = []
    with pytest.raises(RunFolderError, match="damaged: targets is empty; delete it"):
        read_summary(write(tmp_path, several))


def test_a_run_for_one_target_has_one_model(summary: dict[str, Any]):
    assert models_of(summary) == [summary]


def test_every_model_of_several_looks_like_that_of_a_run_of_its_own(
    summary: dict[str, Any], several: dict[str, Any]
):
    models = models_of(several)
    assert [model["target_ratio"] for model in models] == [0.25, 0.5, 0.75]
    assert all(model.keys() >= summary.keys() for model in models)

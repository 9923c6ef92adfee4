from __future__ import annotations

import datasets
import pytest

from rlnas.data.hub import hub_address, hub_metric, is_hub_name, read_hub
from rlnas.errors import DataError


def make_table(text: str = "a") -> datasets.Dataset:
    return datasets.Dataset.from_dict({"sentence": [text], "label": [0]})


@pytest.fixture
def hub(monkeypatch):
    """Sets what the hub answers; collects the addresses that were asked for."""
    asked = []

    def answer_with(answer):
        def load_dataset(*address):
            asked.append(address)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return answer_with


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("glue/sst2", ("nyu-mll/glue", "sst2")),
        ("super_glue/boolq", ("aps/super_glue", "boolq")),
        ("imdb", ("imdb", None)),
        ("owner/name", ("owner/name", None)),
        ("owner/name/config", ("owner/name", "config")),
    ],
)
def test_hub_names_become_addresses(source, address):
    assert is_hub_name(source)
    assert hub_address(source) == address


@pytest.mark.parametrize(
    "source", ["", "/abs/olute", "./folder", "a/b/c/d", "two words", "back\\slash", "~/x", "a//b"]
)
def test_paths_are_no_hub_names(source):
    assert not is_hub_name(source)


def test_splits_are_found_by_name(hub):
    asked = hub(datasets.DatasetDict(train=make_table(), validation=make_table(), test=make_table()))
    assert list(read_hub("glue/sst2")) == ["test", "train", "validation"]
    assert asked == [("nyu-mll/glue", "sst2")]


def test_the_first_of_several_validation_splits_serves(hub):
    splits = {
        "train": make_table(),
        "validation_mismatched": make_table("no"),
        "validation_matched": make_table(),
    }
    hub(datasets.DatasetDict(splits))
    found = read_hub("glue/mnli")
    assert sorted(found) == ["train", "validation"]
    assert found["validation"]["sentence"][:] == ["a"]


def test_a_data_set_without_training_data_is_refused(hub):
    hub(datasets.DatasetDict(test=make_table(), extra=make_table()))
    with pytest.raises(DataError, match="source='owner/name' has no train split, only 'test', 'extra'"):
        read_hub("owner/name")


@pytest.mark.parametrize(
    "error",
    [
        datasets.exceptions.DatasetNotFoundError("Dataset 'owner/name' doesn't exist on the Hub"),
        ValueError("BuilderConfig 'x' not found. Available: ['y']\nmore lines"),
    ],
    ids=["data set", "configuration"],
)
def test_what_the_hub_lacks_is_named(hub, error):
    hub(error)
    match = rf"source='owner/name' is neither a local path nor .* can serve: {str(error)[:20]}"
    with pytest.raises(DataError, match=match) as caught:
        read_hub("owner/name")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [ConnectionError("no route"), TimeoutError("no route"), RuntimeError("no route")]
)
def test_an_unreachable_hub_is_said_with_the_way_out(hub, error):
    hub(error)
    match = rf"hub cannot be reached \({type(error).__name__}: no route\); give a local folder with files"
    with pytest.raises(DataError, match=match):
        read_hub("glue/sst2")


def test_offline_mode_is_an_unreachable_hub(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"source='glue/sst2' is no local path, and the Hugging Face hub cannot be"
    ):
        read_hub("glue/sst2")


def test_real_loading_goes_through_a_script_less_repository(tmp_path, monkeypatch):
    # A folder in the working directory is what load_dataset takes for a repository without a network.
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text('{"sentence": "a text", "label": 1}\n' * 3)
    monkeypatch.chdir(tmp_path)
    found = read_hub("owner/name")
    assert {name: len(table) for name, table in found.items()} == {"train": 3, "test": 3}


def test_cola_is_known_for_matthews():
    assert hub_metric("glue/cola") == hub_metric("nyu-mll/glue/cola") == "matthews"
    assert hub_metric("glue/sst2") is None
    assert hub_metric("imdb") is None

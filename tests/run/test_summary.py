from __future__ import annotations

import pytest

from rlnas.run.folder import RunFolder, write_json
from rlnas.run.summary import _hub_data, _version, base_model, display_name, item_passes


def test_a_package_that_is_not_there_has_no_version():
    assert _version("no-such-package") == "not installed"


@pytest.mark.parametrize("name", ["google/bert_uncased_L-2_H-128_A-2", "a-name"])
def test_a_hub_name_is_shown_as_it_is(name):
    assert display_name(name) == name


@pytest.mark.parametrize(("phases", "passes"), [({"finetune": 1.0}, 5), ({"share": 1.0}, 3)])
def test_passes_are_counted_from_the_checkpoint_on(world, tmp_path, phases, passes):
    folder = RunFolder(tmp_path)
    write_json(folder.phases, phases)
    assert item_passes(world.job(), folder) == passes


def test_a_checkpoint_is_named_as_others_know_it(tmp_path):
    assert base_model("google/bert_uncased_L-2_H-128_A-2") == {
        "name": "google/bert_uncased_L-2_H-128_A-2",
        "on_hub": True,
    }
    assert base_model(str(tmp_path)) is None


@pytest.mark.parametrize(("package", "name"), [("numpy", "numpy"), ("no_distribution", "no_distribution")])
def test_a_checkpoint_inside_a_package_is_named_after_the_package(tmp_path, package, name):
    inside = tmp_path / "site-packages" / package / "model"
    inside.mkdir(parents=True)
    assert base_model(str(inside)) == {"name": name, "on_hub": False}
    assert base_model(str(tmp_path / "site-packages")) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [("glue/sst2", "nyu-mll/glue"), ("owner/films", "owner/films"), ("pydocs", None), ("/no/hub", None)],
)
def test_a_data_set_is_named_where_it_lives_on_the_hub(source, name):
    assert _hub_data(source) == name


def test_a_data_set_here_has_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _hub_data("films") is None

from __future__ import annotations

import pytest

from rlnas.run.folder import RunFolder, write_json
from rlnas.run.summary import _display_name, _version, item_passes


def test_a_package_that_is_not_there_has_no_version():
    assert _version("no-such-package") == "not installed"


@pytest.mark.parametrize("name", ["google/bert_uncased_L-2_H-128_A-2", "a-name"])
def test_a_hub_name_is_shown_as_it_is(name):
    assert _display_name(name) == name


@pytest.mark.parametrize(("phases", "passes"), [({"finetune": 1.0}, 5), ({"share": 1.0}, 3)])
def test_passes_are_counted_from_the_checkpoint_on(world, tmp_path, phases, passes):
    folder = RunFolder(tmp_path)
    write_json(folder.phases, phases)
    assert item_passes(world.job(), folder) == passes

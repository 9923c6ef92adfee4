from __future__ import annotations

from rlnas.deploy.files import CARD_FILE, CONFIG_FILE, FILES, FORMS_FILE, MODEL_FILE
from rlnas.deploy.forms import FORMS


def test_every_form_has_a_file_of_its_own():
    assert tuple(FILES) == FORMS
    names = [CARD_FILE, CONFIG_FILE, FORMS_FILE, MODEL_FILE.name, *FILES.values()]
    assert len(set(names)) == len(names)


def test_the_model_file_is_that_of_the_package():
    assert "class SubnetModel(" in MODEL_FILE.read_text(encoding="utf-8")

from __future__ import annotations

import io

import pytest

from rlnas.errors import DeviceError
from rlnas.run.messages import TIMED, MessagePickler, MessageUnpickler, tried, value_of


def refuse(device):
    raise DeviceError(f"no {device}")


def test_what_has_a_name_stays_and_the_rest_travels():
    here, there, buffer = object(), object(), io.BytesIO()
    MessagePickler(buffer, lambda obj: TIMED if obj is here else None).dump((max, [here, 3]))
    buffer.seek(0)
    names = []
    found = MessageUnpickler(buffer, lambda name: names.append(name) or there).load()
    assert found == (max, [there, 3])
    assert names == [TIMED]


def test_errors_of_ours_are_answers_and_are_raised_where_they_are_read():
    assert value_of(tried(max, 3, 4)) == 4
    answer = tried(refuse, device="cuda:7")
    with pytest.raises(DeviceError, match="no cuda:7"):
        value_of(answer)


def test_other_errors_are_faults_of_ours():
    with pytest.raises(ZeroDivisionError):
        tried(divmod, 1, 0)

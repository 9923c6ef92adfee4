"""Tables of several precisions on one scale."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rlnas.errors import LatencyLookupError, LatencyTableError, RunFolderError
from rlnas.latency import LatencyTable, PrecisionTables, describe_device
from rlnas.space import LayerConfig, ModelShape, SubnetConfig
from rlnas.workload import Workload

SHAPE = ModelShape(2, 2, 8, 4)
WORKLOAD = Workload(1, 16)
RATIOS = {"float32": 1.0, "int8": 0.25, "bfloat16": 0.5}


def table(precision: str, pace: float = 1.0) -> LatencyTable:
    """Full model: 10 ms times the pace; attention costs as much as the FFN."""
    workload = WORKLOAD.in_precision(precision)
    return LatencyTable(
        workload=workload,
        device=describe_device("cpu", mode=workload.mode),
        shape=SHAPE,
        attention_ms={1: pace, 2: 2 * pace},
        ffn_ms={4: pace, 8: 2 * pace},
        floor_ms=2 * pace,
    )


@pytest.fixture
def tables() -> PrecisionTables:
    """Measured on a machine that was three times as slow while int8 was."""
    return PrecisionTables({p: table(p, 3.0 if p == "int8" else 1.0) for p in RATIOS}, RATIOS, "float32")


def test_ratios_of_the_full_model_are_those_of_the_common_rounds(tables):
    full = [replace(SHAPE.full, precision=p) for p in (None, *RATIOS)]
    np.testing.assert_allclose(tables(full), [10.0, *(10 * ratio for ratio in RATIOS.values())])
    assert tables.reference_ms == 10.0
    assert tables.by_speed == ("int8", "bfloat16", "float32")
    assert (tables.shape, tables.workload) == (SHAPE, WORKLOAD)


def test_within_a_precision_latencies_go_by_its_table(tables):
    half = SubnetConfig((LayerConfig(2, 8), LayerConfig(0, 0)))
    for precision, ratio in RATIOS.items():
        found = tables([replace(half, precision=precision)])[0]
        np.testing.assert_allclose(found, 10 * ratio * 6 / 10)


def test_what_is_saved_is_read_again(tables, tmp_path):
    tables.save(tmp_path / "latency")
    read = PrecisionTables.load(tmp_path / "latency", workload=WORKLOAD, device="cpu", shape=SHAPE)
    assert (read.tables, read.full_ratios, read.reference) == (tables.tables, RATIOS, "float32")
    assert (
        str(read)
        == "the full model's latency over that in float32: int8 0.250, bfloat16 0.500, float32 1.000"
    )


def test_some_of_them_can_be_taken(tables):
    assert tables.only(("float32", "int8")).by_speed == ("int8", "float32")
    with pytest.raises(
        LatencyTableError, match=r"tables for float32, int8, bfloat16, but float16 is asked for"
    ):
        tables.only(("float32", "float16"))


def test_a_precision_without_a_table_is_refused(tables):
    with pytest.raises(LatencyLookupError, match=r"float32, int8, bfloat16, .*precision='float16'"):
        tables([replace(SHAPE.full, precision="float16")])


@pytest.mark.parametrize(
    ("ratios", "reference", "message"),
    [
        ({"float32": 1.0}, "int8", "the reference 'int8' too, but got tables of float32"),
        ({"float32": 1.0, "int8": 0.5}, "float32", "tables of float32 and ratios of float32, int8"),
        ({"float32": float("nan")}, "float32", "ratio of float32 must be above 0 and finite, but got nan"),
    ],
)
def test_tables_and_ratios_that_do_not_fit_are_refused(ratios, reference, message):
    with pytest.raises(ValueError, match=message):
        PrecisionTables({"float32": table("float32")}, ratios, reference)


def test_a_table_under_another_name_is_refused():
    with pytest.raises(ValueError, match=r"the table of int8 is for float32"):
        PrecisionTables({"int8": table("float32")}, {"int8": 1.0}, "int8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the latency tables .*precisions.json: No such file"),
        ("{", "precisions.json' is no JSON"),
        ('{"schema_version": 7}', "has schema_version=7, but 1 is needed; delete the folder"),
        ('{"schema_version": 1, "full_ratios": 3}', "is damaged"),
    ],
)
def test_damaged_files_are_named(tables, tmp_path, text, message):
    tables.save(tmp_path)
    path = tmp_path / "precisions.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(LatencyTableError, match=message):
        PrecisionTables.load(tmp_path)


def test_a_missing_table_and_another_workload_are_named(tables, tmp_path):
    tables.save(tmp_path)
    with pytest.raises(LatencyTableError, match=r"not for .batch 4 x 16"):
        PrecisionTables.load(tmp_path, workload=Workload(4, 16))
    (tmp_path / "int8.json").unlink()
    with pytest.raises(LatencyTableError, match=r"int8.json: No such file"):
        PrecisionTables.load(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tables, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write the latency tables .*file"):
        tables.save(tmp_path / "file")


def test_the_file_holds_no_more_than_binds_the_tables(tables, tmp_path):
    tables.save(tmp_path)
    assert json.loads((tmp_path / "precisions.json").read_text()) == {
        "schema_version": 1,
        "reference": "float32",
        "full_ratios": RATIOS,
    }

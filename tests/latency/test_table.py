from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlnas.errors import LatencyLookupError, LatencyTableError, RunFolderError
from rlnas.latency.correction import Correction
from rlnas.latency.device import DeviceInfo
from rlnas.latency.table import BlockTiming, LatencyTable, ModelTiming
from rlnas.latency.timing import Timing
from rlnas.latency.validation import HeldOutError, PredictionError
from rlnas.space import LayerConfig, ModelShape, SubnetConfig
from rlnas.workload import Workload

SHAPE = ModelShape(num_hidden_layers=3, num_attention_heads=4, intermediate_size=16, hidden_size=8)
DEVICE = DeviceInfo("cpu", "Some CPU", versions={"torch": "2.13.0"})
HEADS = (0, 1, 2, 4)
UNITS = (0, 8, 16)


def make_table() -> LatencyTable:
    return LatencyTable(
        workload=Workload(1, 32),
        device=DEVICE,
        shape=SHAPE,
        attention_ms={1: 0.11, 2: 0.23, 4: 0.4},
        ffn_ms={8: 0.5, 16: 0.9},
        floor_ms=0.3,
        correction=Correction("scale_offset", 0.1, 1.2, 1.2, 1.2),
        error=HeldOutError(
            2, PredictionError(0.02, 0.03, 0.03), {"blocks": PredictionError(0.2, 0.3, 0.4)}
        ),
        stack_size=3,
        block_timings=(BlockTiming("floor", 0, Timing((0.3, 0.31, 0.29), 7)),),
        model_timings=(ModelTiming(SHAPE.full, Timing((5.0, 5.1, 4.9), 1, 1, (1.0, 1.1, 0.9))),),
        held_out_timings=(ModelTiming(SHAPE.full, Timing((5.0, 6.0), 1, 2)),),
        repeat_timings=(ModelTiming(SHAPE.full, Timing((5.0, 6.1), 1, 2)),),
        build_seconds=1.5,
        measure_seconds=2.5,
        notes=("this machine is noisy",),
    )


table = pytest.fixture(make_table, name="table")
layers = st.builds(LayerConfig, st.sampled_from(HEADS), st.sampled_from(UNITS))
subnets = st.tuples(layers, layers, layers).map(SubnetConfig)


def test_blocks_are_added_up_and_corrected(table):
    config = SubnetConfig((LayerConfig(4, 16), LayerConfig(0, 8), LayerConfig(1, 0)))
    assert table([config]) == pytest.approx([0.1 + 1.2 * (0.3 + 0.4 + 0.9 + 0.5 + 0.11)])


def test_dropped_blocks_cost_nothing(table):
    more = SubnetConfig((LayerConfig(4, 16), LayerConfig(0, 0), LayerConfig(0, 0)))
    less = SubnetConfig((LayerConfig(4, 0), LayerConfig(0, 0), LayerConfig(0, 0)))
    assert table([more]) - table([less]) == pytest.approx([1.2 * 0.9])


def test_the_model_without_blocks_takes_what_was_timed(table):
    assert table([SubnetConfig((LayerConfig(0, 0),) * 3)]) == [0.3]


def test_no_configs_give_no_latencies(table):
    assert table([]).shape == (0,)


@settings(deadline=None, max_examples=50)
@given(config=subnets, order=st.permutations(range(3)))
def test_it_does_not_matter_where_a_block_stands(config, order):
    shuffled = SubnetConfig(tuple(config.layers[i] for i in order))
    first, second = make_table()([config, shuffled])
    assert first == second


@settings(deadline=None, max_examples=50)
@given(configs=st.lists(subnets, min_size=1, max_size=5))
def test_a_prediction_does_not_depend_on_its_batch(configs):
    table = make_table()
    assert [table([config])[0] for config in configs] == table(configs).tolist()


@settings(deadline=None, max_examples=50)
@given(config=subnets)
def test_blocks_are_exactly_additive(config):
    table = make_table()
    without = [
        SubnetConfig(tuple(LayerConfig(0, 0) if i == k else layer for i, layer in enumerate(config.layers)))
        for k in range(3)
    ]
    sums = table.correction(table.parts([config, *without]))
    empty_ms = table.correction(table.parts([SubnetConfig((LayerConfig(0, 0),) * 3)]))[0]
    assert np.sum(sums[0] - sums[1:]) == pytest.approx(sums[0] - empty_ms)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            LayerConfig(3, 8),
            r"no num_attention_heads=3, only \[1, 2, 4\]; calibrate with a space that offers",
        ),
        (LayerConfig(1, 9), r"no intermediate_size=9, only \[8, 16\]; calibrate with a space that offers"),
    ],
)
def test_an_unknown_size_names_what_there_is(table, layer, message):
    with pytest.raises(LatencyLookupError, match=message):
        table([SubnetConfig((layer,) * 3)])


def test_a_model_of_another_depth_is_refused(table):
    with pytest.raises(LatencyLookupError, match="of 3 layers, but the subnet has 2"):
        table([SubnetConfig((LayerConfig(1, 8),) * 2)])


def test_another_precision_is_refused(table):
    config = SubnetConfig(SHAPE.full.layers, precision="bfloat16")
    with pytest.raises(LatencyLookupError, match="for float32, but the subnet has precision='bfloat16'"):
        table([config])


def test_the_precision_of_the_workload_may_be_named(table):
    named = SubnetConfig(SHAPE.full.layers, precision="float32")
    assert table([named]) == table([SHAPE.full])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention_ms": {1: -0.1}}, r"attention_ms\[1\] must be at least 0 and finite, but got -0\.1"),
        ({"ffn_ms": {8: float("nan")}}, r"ffn_ms\[8\] must be at least 0 and finite, but got nan"),
        ({"floor_ms": -2.0}, r"floor_ms must be at least 0 and finite, but got -2\.0"),
        ({"ffn_ms": {0: 1.0}}, "but got size 0"),
        ({"tail_ratio": 0.0}, r"tail_ratio must be above 0 and finite, but got 0\.0"),
    ],
)
def test_an_impossible_time_is_refused(table, fields, message):
    with pytest.raises(ValueError, match=message):
        replace(table, **fields)


def test_the_summary_names_device_floor_and_error(table):
    assert str(table) == (
        "latency of batch 1 x 32 tokens, float32, eager on Some CPU (1 thread): floor 0.30 ms, full model "
        "5.14 ms, correction scale_offset; held-out error 2.0% (p95 3.0%) on 2 models, leave-one-out; "
        "counting blocks 20.0% (p95 30.0%); this machine is noisy"
    )


def test_the_summary_warns_where_a_control_is_better(table):
    error = replace(table.error, worse_than="blocks")
    assert "counting blocks predicts latency better here" in str(replace(table, error=error))


def test_a_table_that_nothing_judged_has_nothing_to_compare(table):
    assert replace(table, model_timings=(), held_out_timings=()).against_measured() == []


def test_a_tail_is_a_multiple_of_the_median(table):
    tailed = replace(table, workload=Workload(1, 32, statistic="p99"), tail_ratio=1.5)
    configs = [SHAPE.full, SubnetConfig((LayerConfig(1, 8),) * 3)]
    assert tailed(configs) == pytest.approx(1.5 * table(configs))
    assert "p99 1.50 times the median" in str(tailed)


def test_the_summary_of_a_table_without_the_full_model_says_so(table):
    assert "full model nan ms" in str(replace(table, attention_ms={1: 0.1}))


def test_a_table_is_the_same_after_saving_and_loading(table, tmp_path):
    table.save(tmp_path / "latency.json")
    loaded = LatencyTable.load(
        tmp_path / "latency.json", workload=table.workload, device=DEVICE, shape=SHAPE
    )
    assert loaded == table
    assert loaded.foreign_note is None


def test_a_table_can_be_sent_to_another_process(table):
    assert pickle.loads(pickle.dumps(table)) == table


def test_saving_leaves_nothing_but_the_table(table, tmp_path):
    table.save(tmp_path / "latency.json")
    table.save(tmp_path / "latency.json")
    assert [path.name for path in tmp_path.iterdir()] == ["latency.json"]


def test_a_save_that_breaks_off_keeps_the_old_table(table, tmp_path, monkeypatch):
    path = tmp_path / "latency.json"
    table.save(path)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(RunFolderError, match=r"latency\.json: No space left on device"):
        replace(table, floor_ms=9.0).save(path)
    assert LatencyTable.load(path) == table
    assert [left.name for left in tmp_path.iterdir()] == ["latency.json"]


def test_a_folder_that_is_not_there_cannot_be_written(table, tmp_path):
    with pytest.raises(
        RunFolderError, match=r"cannot write the latency table .*nowhere/latency\.json: No such"
    ):
        table.save(tmp_path / "nowhere" / "latency.json")


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(LatencyTableError, match=r"gone\.json: No such file or directory; calibrate"):
        LatencyTable.load(tmp_path / "gone.json")


def test_a_file_that_is_no_json_is_named(tmp_path):
    (tmp_path / "latency.json").write_text('{"schema_version": 1, "work')
    with pytest.raises(
        LatencyTableError, match=r"latency\.json is no JSON .*; delete it and calibrate again"
    ):
        LatencyTable.load(tmp_path / "latency.json")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "latency.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LatencyTableError, match=r"latency\.json is no JSON"):
        LatencyTable.load(tmp_path / "latency.json")


@pytest.mark.parametrize(("text", "found"), [("[]", "None"), ('{"schema_version": 99}', "99")])
def test_a_file_of_another_schema_is_named(tmp_path, text, found):
    (tmp_path / "latency.json").write_text(text)
    with pytest.raises(
        LatencyTableError, match=rf"latency\.json has schema_version={found}, but 2 is needed"
    ):
        LatencyTable.load(tmp_path / "latency.json")


def damaged(table: LatencyTable, path, change) -> None:
    table.save(path)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("floor_ms"), "lacks 'floor_ms'"),
        (lambda v: v.update(floor_ms=-1), r"damaged \(floor_ms must be at least 0"),
        (lambda v: v.update(floor_ms=None), "damaged"),
        (lambda v: v.update(attention_ms=[1, 2]), "damaged"),
        (lambda v: v["ffn_ms"].update(wide=1.0), "damaged .*'wide'"),
        (lambda v: v["ffn_ms"].update({"8": float("nan")}), r"damaged \(ffn_ms\[8\].*nan"),
        (lambda v: v["workload"].update(batch_size=0), "damaged .*batch_size=0"),
        (lambda v: v["device"].update(colour="red"), "damaged .*colour"),
        (lambda v: v["correction"].update(form="cubic"), "damaged .*cubic"),
        (lambda v: v["error"].update(colour="red"), "damaged .*colour"),
        (
            lambda v: v["model_timings"][0].update(slowdowns=[1.0]),
            "damaged .*3 rounds need as many slowdowns",
        ),
        (lambda v: v["model_timings"][0].update(config={}), "damaged .*layers"),
        (lambda v: v["block_timings"][0].update(samples_ms=[]), "damaged .*samples_ms is empty"),
    ],
)
def test_a_damaged_table_is_named_with_its_fault(table, tmp_path, change, message):
    path = tmp_path / "latency.json"
    damaged(table, path, change)
    with pytest.raises(LatencyTableError, match=rf"latency\.json .*{message}"):
        LatencyTable.load(path)


OTHER_DEVICE = replace(DEVICE, name="Other CPU")
OTHER_WORKLOAD = Workload(8, 64)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": OTHER_DEVICE}, r"made on \[cpu Some CPU.*\], not on \[cpu Other CPU.*\]"),
        ({"device": replace(DEVICE, threads=2)}, r"made on \[.*1 thread,.*\], not on \[.*2 threads,"),
        (
            {"device": replace(DEVICE, versions={"torch": "3.0"})},
            r"torch 2\.13\.0\], not on \[.*torch 3\.0\]",
        ),
        ({"workload": OTHER_WORKLOAD}, r"made for \[batch 1 x 32.*\], not for \[batch 8 x 64"),
        ({"device": OTHER_DEVICE, "workload": OTHER_WORKLOAD}, r"Other CPU.* and made for .*batch 8 x 64"),
    ],
    ids=["device", "threads", "version", "workload", "both"],
)
def test_a_table_for_something_else_is_taken_only_if_told(table, tmp_path, asked, message):
    path = tmp_path / "latency.json"
    table.save(path)
    with pytest.raises(LatencyTableError, match=message):
        LatencyTable.load(path, **asked)
    taken = LatencyTable.load(path, **asked, allow_mismatch=True)
    assert taken([SHAPE.full]) == table([SHAPE.full])
    assert taken.foreign_note is not None
    assert taken.foreign_note.startswith(
        "predicted for batch 1 x 32 tokens, float32, eager on cpu Some CPU"
    )
    assert taken.foreign_note in str(taken)


def test_a_foreign_table_stays_that_of_its_own_device(table, tmp_path):
    table.save(tmp_path / "a.json")
    taken = LatencyTable.load(tmp_path / "a.json", device=OTHER_DEVICE, allow_mismatch=True)
    taken.save(tmp_path / "b.json")
    assert LatencyTable.load(tmp_path / "b.json", device=DEVICE) == table


def test_a_table_of_another_model_is_never_taken(table, tmp_path):
    table.save(tmp_path / "latency.json")
    other = replace(SHAPE, num_hidden_layers=12)
    with pytest.raises(LatencyTableError, match=r"num_hidden_layers=3.*num_hidden_layers=12.*is asked for"):
        LatencyTable.load(tmp_path / "latency.json", shape=other, allow_mismatch=True)

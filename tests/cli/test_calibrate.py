from __future__ import annotations

import functools
import re
from dataclasses import replace

import pytest
from world import WORKLOAD, make_table

import rlnas.alignment
import rlnas.run.calibration
from rlnas.calibration import Effort
from rlnas.cli import main
from rlnas.latency import HeldOutError, LatencyTable, PredictionError
from rlnas.latency.regime import find_regime


@pytest.fixture
def quick(monkeypatch):
    """Calibration with few rounds; returns the efforts that were asked for."""
    real, efforts = rlnas.run.calibration.calibrate, []

    def few(*args, effort, **how):
        efforts.append(effort)
        n_held_out = effort.n_held_out
        return real(*args, effort=Effort(4, n_held_out, n_rounds=5, max_seconds=0.5), **how)

    monkeypatch.setattr(rlnas.run.calibration, "calibrate", few)
    return efforts


def test_calibrate_writes_a_table_that_a_search_takes(world, tmp_path, capsys, quick):
    out = tmp_path / "tables" / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", str(WORKLOAD.seq_len))
    assert main(["calibrate", *flags, "--out", str(out)]) == 0
    table = LatencyTable.load(out)
    assert table.workload == WORKLOAD
    assert set(table.attention_ms) == {1, 2, 3, 4}
    assert quick == [Effort()]
    printed = capsys.readouterr()
    first, regime, title, *rows = printed.out.splitlines()
    assert first.startswith("latency of batch 1 x 16 tokens")
    assert regime == str(find_regime(table))
    assert title.startswith("error on 4 held-out subnets (each predicted from the others)")
    assert rows[0].startswith("  this table")
    assert re.fullmatch(r"building took [\d.]+ s, measuring [\d.]+ s", rows[-2])
    assert rows[-1] == f"table: {out}"
    assert "FFN width" not in printed.out
    assert "calibrate: 100%" in printed.err


def test_calibrate_judges_its_table_on_further_subnets_if_asked(world, tmp_path, capsys, quick):
    out = tmp_path / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", "16", "--held-out", "6")
    assert main(["calibrate", *flags, "--out", str(out)]) == 0
    assert quick == [Effort(n_held_out=6)]
    assert len(LatencyTable.load(out).held_out_timings) == 6
    printed = capsys.readouterr().out
    assert "error on 6 held-out subnets (measured for this alone)" in printed
    assert "counting blocks" in printed
    assert "counting FLOPs" in printed


def test_calibrate_warns_of_a_table_that_is_worse_than_counting(
    world, tmp_path, capsys, monkeypatch, caplog
):
    error = HeldOutError(
        16, PredictionError(0.1, 0.2, 0.3), {"flops": PredictionError(0.01, 0.02, 0.03)}, worse_than="flops"
    )
    table = replace(make_table(), error=error, notes=("the clock moved",))
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", lambda *_, **__: table)
    assert main(["calibrate", "--model", str(world.model), "--out", str(tmp_path / "t.json")]) == 0
    assert "latency: counting flops predicts latency better here" in caplog.text
    assert "latency: the clock moved" in caplog.text


def test_a_table_that_shows_no_regime_is_written_and_told(world, tmp_path, capsys, monkeypatch, caplog):
    table = replace(make_table(), attention_ms={4: 0.2}, ffn_ms={64: 0.2})
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", lambda *_, **__: table)
    out = tmp_path / "t.json"
    assert main(["calibrate", "--model", str(world.model), "--device", "cpu", "--out", str(out)]) == 0
    assert "two sizes to see what a size costs" in caplog.text
    printed = capsys.readouterr().out
    assert printed.startswith("latency of batch 1 x 16 tokens")
    assert printed.endswith(f"table: {out}\n")


def test_calibrate_takes_the_lengths_of_a_task(world, tmp_path, quick):
    out = tmp_path / "tiny.json"
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", "16", "--lengths", "task")
    assert main(["calibrate", *flags, "--task", str(world.data), "--out", str(out)]) == 0
    workload = LatencyTable.load(out).workload
    assert len(workload.lengths) == 64
    assert workload.seq_len == 16


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lengths", "task"], r"--lengths=task takes the lengths of a task's texts; name one \(--task\)"),
        (["--task", "pydocs"], "--task=pydocs is read for the lengths .*; add --lengths=task, or drop it"),
        (["--pair-column", "b"], r"--pair-column=b is for a task, but none is named; name one \(--task\)"),
        (["--held-out", "-1"], "n_held_out must be at least 0, but got n_held_out=-1"),
        (["--mode", "cuda_graph"], "mode='cuda_graph' needs a CUDA device"),
        (
            ["--mode", "onnxruntime", "--dtype", "bfloat16"],
            "runs float32, float16, int8, int8_attention, int8_ffn, but got dtype='bfloat",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_calibrate_refuses_what_cannot_be_before_it_measures(
    world, tmp_path, refused, monkeypatch, flags, message
):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    flags = ["--device", "cpu", *flags]
    refused(["calibrate", "--model", world.model, *flags, "--out", tmp_path / "t.json"], message)


@pytest.mark.usefixtures("quick")
def test_calibrate_says_which_widths_the_device_likes_if_asked(world, tmp_path, capsys, monkeypatch):
    few = functools.partial(rlnas.alignment.probe_alignment, n_rounds=5)
    monkeypatch.setattr(rlnas.alignment, "probe_alignment", few)
    flags = ("--model", str(world.model), "--device", "cpu", "--seq-len", str(WORKLOAD.seq_len))
    assert main(["calibrate", *flags, "--alignment", "--out", str(tmp_path / "tiny.json")]) == 0
    *_, finding, _, last = capsys.readouterr().out.splitlines()
    assert re.search(r"FFN width.* per unit.*; odd widths cost \d+\.\d% (more|less) \(", finding)
    assert last.startswith("table: ")


def test_calibrate_names_a_missing_checkpoint(tmp_path, refused):
    refused(["calibrate", "--model", "no/such", "--out", tmp_path / "t.json"], "no checkpoint 'no/such'")

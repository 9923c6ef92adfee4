from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
from world import BUDGET, N_FINAL, N_SEARCH, SHAPE, WORKLOAD, make_table

from rlnas.deploy.certify import TARGET_TOLERANCE
from rlnas.evaluation import Racing, SupernetEvaluator
from rlnas.history import History
from rlnas.latency import describe_device
from rlnas.pareto import is_pareto_optimal
from rlnas.report import read_summary
from rlnas.run import run_job
from rlnas.run.delivery import _display_name, _version, item_passes
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.run.inputs import prepare_inputs
from rlnas.space import LayerwiseSpace, SubnetConfig
from rlnas.supernet import FullTrainer

MODEL_KEYS = {"accuracy", "accuracy_ci", "n_items", "split", "latency_ms", "latency_spread_ms", "n_params"}
SEARCH_KEYS = {"config", "trial", "predicted_latency_ms", "reward"}
KEYS = {
    *("rlnas_version", "model", "task", "shape", "device", "workload", "versions", "controller", "reward"),
    *(
        "budget",
        "seed",
        "n_trials",
        "n_raced_out",
        "stop_reason",
        "target_ratio",
        "target_ms",
        "target_met",
        "full",
        "best",
    ),
    *("latency_ratio", "latency_ratio_ci", "loss_points", "loss_ci", "pareto", "latency_model", "note"),
    *("evaluation", "last64_mean_reward", "item_passes", "seconds"),
}
PHASES = (
    *("data", "calibrate", "finetune", "importance", "share", "search", "measure", "finish", "baseline"),
    "certify",
)


@pytest.fixture(scope="module")
def summary(finished):
    return read_json(finished / "summary.json")


@pytest.fixture(scope="module")
def trials(finished):
    with History.read(finished) as history:
        return history.trials


def test_the_summary_holds_what_was_agreed_on(summary):
    assert set(summary) == KEYS
    assert set(summary["full"]) == MODEL_KEYS
    assert set(summary["best"]) == MODEL_KEYS | SEARCH_KEYS | {"search_accuracy", "search_accuracy_float32"}
    for entry in summary["pareto"]:
        assert set(entry) == MODEL_KEYS | SEARCH_KEYS | {"latency_ratio"}


def test_the_summary_is_plain_json(finished):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    json.loads((finished / "summary.json").read_text(), parse_constant=refuse)


def test_the_summary_is_what_the_report_reads(finished, summary):
    assert read_summary(finished) == summary


def test_the_summary_says_what_was_asked_for(world, summary):
    assert summary["budget"] == summary["n_trials"] == BUDGET
    assert summary["stop_reason"] == f"the budget of {BUDGET} trials is spent"
    assert summary["seed"] == 0
    assert summary["target_ratio"] == pytest.approx(0.75)
    assert summary["target_ms"] == pytest.approx(0.75 * make_table()([SHAPE.full])[0])
    assert summary["reward"] == world.job().settings()["reward"]
    assert summary["controller"] == world.job().settings()["controller"]
    assert summary["workload"] == WORKLOAD.to_dict()
    assert summary["device"] == describe_device("cpu").to_dict()
    assert summary["shape"] == asdict(SHAPE)
    assert summary["item_passes"] == 5
    assert summary["latency_model"] == {"foreign_note": None}


def test_the_summary_names_the_model_without_a_home_folder(world, summary):
    assert summary["model"] == f"{world.root.name}/tiny-bert"
    assert str(world.root) not in json.dumps(summary)


def test_the_summary_counts_the_items(summary):
    task = summary["task"]
    assert (task["name"], task["metric"]) == ("reviews", "accuracy")
    assert (task["n_search"], task["n_final"], task["final_split"]) == (N_SEARCH, N_FINAL, "validation")
    assert summary["full"]["n_items"] == summary["best"]["n_items"] == N_FINAL
    assert summary["full"]["split"] == summary["best"]["split"] == "validation"
    assert {entry["n_items"] for entry in summary["pareto"]} == {N_SEARCH}
    assert {entry["split"] for entry in summary["pareto"]} == {"search"}


def test_the_figures_agree_with_each_other(summary):
    full, best = summary["full"], summary["best"]
    assert summary["loss_points"] == pytest.approx(100 * (full["accuracy"] - best["accuracy"]))
    assert summary["loss_ci"][0] <= summary["loss_points"] <= summary["loss_ci"][1]
    assert summary["latency_ratio_ci"][0] <= summary["latency_ratio"] <= summary["latency_ratio_ci"][1]
    is_met = summary["latency_ratio"] <= TARGET_TOLERANCE * summary["target_ratio"]
    assert summary["target_met"] is is_met
    for entry in (full, best, *summary["pareto"]):
        assert entry["accuracy_ci"][0] <= entry["accuracy"] <= entry["accuracy_ci"][1]
        assert entry["latency_ms"] > 0
        assert entry["latency_spread_ms"] >= 0
    assert best["n_params"] < full["n_params"]


def test_a_task_that_can_be_learnt_is_learnt(summary):
    assert summary["full"]["accuracy"] >= 0.9


def test_the_chosen_subnet_is_one_of_the_trials(summary, trials):
    best = summary["best"]
    trial = trials[best["trial"]]
    assert trial.config.to_dict() == best["config"]
    assert trial.metrics.accuracy == best["search_accuracy"]
    assert trial.metrics.latency_ms == best["predicted_latency_ms"]
    assert trial.metrics.n_params == best["n_params"]
    assert trial.reward == best["reward"]


def test_the_chosen_subnet_is_judged_in_full_precision_too(world, finished, summary):
    job, folder = world.job(), RunFolder(finished)
    inputs = prepare_inputs(job, folder, progress=False)
    config = SubnetConfig.from_dict(summary["best"]["config"])
    exact = SupernetEvaluator(inputs.supernet, inputs.task, inputs.latency, precision="float32")
    assert summary["best"]["search_accuracy_float32"] == exact([config])[0].accuracy


def test_the_summary_says_what_the_evaluation_has_cost(finished, summary):
    spent = dict(summary["evaluation"])
    assert spent["n_configs"] == BUDGET
    assert spent["n_items"] == BUDGET * N_SEARCH
    assert spent["n_tokens"] > spent["n_items"]
    assert 0 < spent["flops"] < spent["masked_flops"]
    assert spent.pop("precision") in ("float32", "bfloat16")
    assert spent.pop("traversal").startswith("depth first, packs of up to")
    assert spent.pop("racing") is None
    # What comes after the search, e.g. the predictions of the front, is not the search's.
    assert spent == read_json(finished / "evaluation.json")


def test_the_summary_says_how_subnets_were_raced(world, run):
    (run / "summary.json").unlink()
    (run / "history.sqlite").unlink()
    settings = read_json(run / "config.json")
    job = world.job(racing=Racing(confidence=0.9, indifference=0.01), budget=16)
    write_json(run / "config.json", settings | {"racing": job.settings()["racing"]})
    summary = run_job(job, run, resume=True, progress=False)
    assert summary["evaluation"]["racing"] == {"confidence": 0.9, "indifference": 0.01}
    assert summary["evaluation"]["n_configs"] == 16  # without those of the history that is gone


def test_the_front_holds_measured_trials_that_do_not_beat_each_other(summary, trials):
    front = summary["pareto"]
    for entry in front:
        trial = trials[entry["trial"]]
        assert trial.config.to_dict() == entry["config"]
        assert (trial.metrics.accuracy, trial.reward) == (entry["accuracy"], entry["reward"])
    costs = [(entry["latency_ms"], -entry["accuracy"]) for entry in front]
    assert all(is_pareto_optimal(costs))
    assert costs == sorted(costs)


def test_the_last_rewards_are_averaged_over_all_proposals(summary, trials):
    rewards = [trial.reward for trial in trials]
    assert min(rewards) <= summary["last64_mean_reward"] <= max(rewards)


def test_the_seconds_of_all_phases_are_kept(summary):
    seconds = dict(summary["seconds"])
    assert seconds.pop("total") == pytest.approx(sum(seconds.values()), abs=0.01)
    assert tuple(seconds) == PHASES


def test_the_versions_are_named(summary):
    import torch

    assert summary["versions"]["torch"] == torch.__version__
    assert {"transformers", "stable-baselines3", "gymnasium", "datasets", "numpy"} <= set(
        summary["versions"]
    )


def test_a_package_that_is_not_there_has_no_version():
    assert _version("no-such-package") == "not installed"


@pytest.mark.parametrize("name", ["google/bert_uncased_L-2_H-128_A-2", "a-name"])
def test_a_hub_name_is_shown_as_it_is(name):
    assert _display_name(name) == name


def test_the_run_folder_holds_nothing_half_done(finished):
    names = {path.name for path in finished.iterdir()}
    assert names - {"history.lock", "run.lock"} == {
        *(
            "best",
            "config.json",
            "data",
            "evaluation.json",
            "full",
            "history.sqlite",
            "latency.json",
            "phases.json",
        ),
        *("report.html", "summary.json", "supernet"),
    }


def test_the_certificate_lies_beside_the_model(finished, summary):
    certificate = read_json(finished / "best" / "certificate.json")
    assert certificate["latency_ratio"] == summary["latency_ratio"]
    assert certificate["full"] == summary["full"]


def test_the_chosen_model_carries_its_code_tokenizer_and_labels(finished):
    config = read_json(finished / "best" / "config.json")
    assert config["auto_map"]["AutoModelForSequenceClassification"] == "modeling_subnet.SubnetModel"
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert (finished / "best" / "modeling_subnet.py").is_file()
    assert (finished / "best" / "tokenizer.json").is_file()


@pytest.mark.parametrize(("phases", "passes"), [({"finetune": 1.0}, 5), ({"share": 1.0}, 3)])
def test_passes_are_counted_from_the_checkpoint_on(world, tmp_path, phases, passes):
    folder = RunFolder(tmp_path)
    write_json(folder.phases, phases)
    assert item_passes(world.job(), folder) == passes


def test_the_note_of_a_foreign_table_is_in_the_summary(world, run):
    make_table(device_name="Other CPU").save(run / "latency.json")
    (run / "summary.json").unlink()
    summary = run_job(replace(world.job(), allow_foreign_table=True), run, resume=True, progress=False)
    assert "Other CPU" in summary["latency_model"]["foreign_note"]
    assert "Other CPU" in (run / "report.html").read_text()


def test_a_reward_without_a_target_leaves_the_target_out(world, tmp_path, finished, monkeypatch):
    space = LayerwiseSpace.for_model(SHAPE)
    monkeypatch.setattr(FullTrainer, "train", None)  # the baseline is that of the finished run
    (tmp_path / "full").symlink_to(finished / "full")
    (tmp_path / "data").symlink_to(finished / "data")
    (tmp_path / "supernet").symlink_to(finished / "supernet")
    job = replace(world.job(), reward=lambda metrics: metrics.accuracy, budget=16)
    summary = run_job(job, tmp_path, progress=False)
    assert summary["target_ratio"] is summary["target_ms"] is summary["target_met"] is None
    assert SubnetConfig.from_dict(summary["best"]["config"]) in space
    assert summary["best"]["search_accuracy"] == max(entry["accuracy"] for entry in summary["pareto"])

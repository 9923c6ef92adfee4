from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from world import BUDGET, N_FINAL, N_SEARCH, SHAPE, WORKLOAD, make_table

from rlnas.data import read_task
from rlnas.deploy.certificate import TARGET_TOLERANCE
from rlnas.evaluation import Racing, SupernetEvaluator
from rlnas.history import History, Result
from rlnas.latency import HeldOutError, PredictionError, Timing, describe_device
from rlnas.latency.regime import find_regime
from rlnas.metrics import Metrics
from rlnas.pareto import is_pareto_optimal
from rlnas.report import read_summary
from rlnas.rewards import LatencyTarget
from rlnas.run import delivery, run_job
from rlnas.run.choice import MARGIN, MeasuredTrial
from rlnas.run.delivery import _expected_accuracies
from rlnas.run.folder import RunFolder, read_json, write_json
from rlnas.run.inputs import prepare_inputs
from rlnas.run.repairing import Repaired
from rlnas.run.steps import Step, write_steps
from rlnas.space import LayerOptions, LayerwiseSpace, SubnetConfig
from rlnas.supernet import FullTrainer
from rlnas.tabular import additive_task
from rlnas.trial import Trial
from rlnas.workload import Workload

FRONT_KEYS = {"accuracy", "accuracy_ci", "n_items", "split", "latency_ms", "latency_spread_ms", "n_params"}
MODEL_KEYS = FRONT_KEYS | {"latency_ci"}
SEARCH_KEYS = {"config", "trial", "predicted_latency_ms", "reward"}
KEYS = {
    *("base_model", "training"),
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
    *("latency_ratio", "latency_ratio_ci", "loss_points", "loss_ci", "pareto", "latency_model", "regime"),
    "note",
    "added",
    "honest",
    "from_run",
    *("evaluation", "last64_mean_reward", "item_passes", "seconds", "steps", "confirmations", "prediction"),
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


SEARCHED = {"search_accuracy", "expected_accuracy", "repaired_accuracy", "search_accuracy_float32"}


def test_the_summary_holds_what_was_agreed_on(summary):
    assert set(summary) == KEYS
    assert set(summary["full"]) == MODEL_KEYS
    assert set(summary["best"]) == MODEL_KEYS | SEARCH_KEYS | SEARCHED
    for entry in summary["pareto"]:
        assert set(entry) == FRONT_KEYS | SEARCH_KEYS | {"latency_ratio"}


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
    assert summary["latency_model"] == {"notes": [], "foreign_note": None}
    assert summary["prediction"] is None
    regime = find_regime(make_table())
    assert summary["regime"] == {**regime.to_dict(), "sentence": str(regime)}


def test_the_summary_names_the_model_without_a_home_folder(world, summary):
    assert summary["model"] == f"{world.root.name}/tiny-bert"
    assert str(world.root) not in json.dumps(summary)


def test_the_card_of_the_delivered_model_says_what_was_certified(finished, summary):
    card = (finished / "best" / "README.md").read_text()
    best = summary["best"]
    low, high = best["accuracy_ci"]
    assert f"| this model | {best['accuracy']:.3f} [{low:.3f}, {high:.3f}] |" in card
    assert f"on the same {N_FINAL} items of the validation split of reviews" in card
    assert "the target 0.75 is" in card
    assert "this subnet alone, taught by the full one: 1 pass" in card
    assert f"- {N_SEARCH} items of the search split for the choice among subnets" in card
    assert str(finished.parent) not in card


def test_the_summary_says_how_the_weights_were_trained(summary):
    assert summary["training"] == {"full_epochs": 2, "epochs": 2, "finish_epochs": 1, "repair_items": 0}
    assert summary["base_model"] is None


def test_the_summary_counts_the_items(summary):
    task = summary["task"]
    assert (task["train_split"], task["search_split"], task["hub_name"]) == ("train", "search", None)
    assert "carved from" in task["notes"][0]
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
    for entry in (full, best):
        assert entry["latency_ci"][0] <= entry["latency_ms"] <= entry["latency_ci"][1]
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
    assert 0 < best["expected_accuracy"] < 1
    assert best["repaired_accuracy"] is None
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
    assert certificate["steps"] == summary["steps"]


def test_the_chosen_model_carries_its_code_tokenizer_and_labels(finished):
    config = read_json(finished / "best" / "config.json")
    assert config["auto_map"]["AutoModelForSequenceClassification"] == "modeling_subnet.SubnetModel"
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert (finished / "best" / "modeling_subnet.py").is_file()
    assert (finished / "best" / "tokenizer.json").is_file()


def test_the_error_of_the_table_is_in_the_summary(world, run):
    off = PredictionError(0.02, 0.05, 0.06, 0.9, 0.8)
    error = HeldOutError(16, off, {"blocks": replace(off, mape=0.01)}, noise=0.02, worse_than="blocks")
    replace(make_table(), error=error, notes=("a note",)).save(run / "latency.json")
    (run / "summary.json").unlink()
    model = run_job(world.job(), run, resume=True, progress=False)["latency_model"]
    assert (model["mape"], model["p95"], model["tau_within_depth"]) == (0.02, 0.05, 0.8)
    assert model["controls"] == {"blocks": 0.01}
    assert (model["n_held_out"], model["noise"], model["notes"]) == (16, 0.02, ["a note"])
    assert "counting blocks predicts latency better here" in model["warning"]


# The automatic step


class Machine:
    """Stands in for the stopwatch: a subnet takes as long as predicted, but for what it is told.

    Attributes:
        again: Ratios that the second looks find, one after the other; then what the first look found.
        certified: The same of the certificates.
        looked_at: Trials of the second looks.
        finished: Configs that were trained.
    """

    def __init__(self, monkeypatch, *, again=(), certified=()):
        self.again, self.certified = list(again), list(certified)
        self.looked_at, self.finished, self.ratios = [], [], {}
        self._certify, self._finish = delivery.certify, delivery.finish_subnet
        for name in ("measure_trials", "measure_again", "certify", "finish_subnet"):
            monkeypatch.setattr(delivery, name, getattr(self, name))

    def measure_trials(self, timed, trials, device):
        full_ms = float(make_table()([timed.shape.full])[0])
        self.ratios = {trial.config: trial.metrics.latency_ms / full_ms for trial in trials}
        return [MeasuredTrial(t, Timing((self.ratios[t.config],)), self.ratios[t.config]) for t in trials]

    def measure_again(self, timed, config, device):
        self.looked_at.append(config)
        return self.again.pop(0) if self.again else self.ratios[config]

    def finish_subnet(self, job, supernet, config, *args, **how):
        self.finished.append(config)
        return self._finish(job, supernet, config, *args, **how)

    def certify(self, *args, **how):
        certificate = self._certify(*args, **how, n_rounds=5)
        ratio = self.certified.pop(0) if self.certified else self.ratios[self.finished[-1]]
        return replace(certificate, latency_ratio=ratio)


@pytest.fixture
def searched(run):
    """A run whose search has ended and from which nothing was delivered."""
    (run / "summary.json").unlink()
    return run


def steps_of(path):
    return path / "checkpoints" / "steps.json"


def delivered(world, path, **changes):
    return run_job(world.job(**changes), path, resume=True, progress=False)


def test_a_choice_that_meets_its_target_is_looked_at_again_and_kept(world, searched, monkeypatch):
    machine = Machine(monkeypatch)
    summary = delivered(world, searched)
    ratio = summary["latency_ratio"]
    assert summary["target_met"] is True
    assert summary["steps"] == [
        {"trial": summary["best"]["trial"], "latency_ratio": ratio, "target_met": True}
    ]
    assert summary["confirmations"] == [{"trial": summary["best"]["trial"], "latency_ratio": ratio}]
    assert len(machine.finished) == 1


def test_a_miss_that_a_second_look_finds_costs_no_training(world, searched, monkeypatch):
    machine = Machine(monkeypatch, again=[0.79])
    summary = delivered(world, searched)
    first, second = summary["confirmations"]
    assert first["latency_ratio"] > 1.02 * 0.75
    assert second["trial"] != first["trial"]
    assert [step["trial"] for step in summary["steps"]] == [second["trial"]]
    assert machine.finished == machine.looked_at[1:]
    # The others are expected to be as far off.
    off = 0.79 / machine.ratios[machine.looked_at[0]]
    assert off * machine.ratios[machine.looked_at[1]] <= 1.02 * 0.75


def test_a_miss_that_the_certificate_finds_makes_one_step(world, searched, trials, monkeypatch):
    machine = Machine(monkeypatch, certified=[0.9])
    summary = delivered(world, searched)
    first, second = summary["steps"]
    assert (first["target_met"], second["target_met"]) == (False, True)
    assert second["trial"] == summary["best"]["trial"] != first["trial"]
    assert [trials[step["trial"]].config for step in (first, second)] == machine.finished
    assert machine.ratios[machine.finished[1]] < machine.ratios[machine.finished[0]]
    assert read_json(searched / "best" / "certificate.json")["steps"] == summary["steps"]
    stored = SubnetConfig.from_dict(read_json(searched / "best" / "subnet.json"))
    assert stored == machine.finished[1] == SubnetConfig.from_dict(summary["best"]["config"])
    assert not (searched / "checkpoints").exists()


def test_there_is_one_step_whatever_its_certificate_says(world, searched, monkeypatch):
    machine = Machine(monkeypatch, certified=[0.9, 3.0])
    summary = delivered(world, searched)
    assert [step["target_met"] for step in summary["steps"]] == [False, False]
    assert summary["target_met"] is False
    assert len(machine.finished) == 2


def test_where_nothing_is_faster_a_miss_is_kept(world, searched, monkeypatch):
    machine = Machine(monkeypatch, certified=[9.0])
    _leave_the_fastest(monkeypatch)
    summary = delivered(world, searched)
    assert [step["target_met"] for step in summary["steps"]] == [False]
    assert len(machine.finished) == 1


def _leave_the_fastest(monkeypatch):
    """One finalist alone."""
    monkeypatch.setattr(delivery, "finalists", lambda result: [_fastest(result.trials)])
    monkeypatch.setattr(delivery, "further_finalists", lambda *_: [])


def _fastest(trials):
    return min(trials, key=lambda trial: trial.metrics.latency_ms)


@pytest.mark.parametrize("moment", ["finish_subnet", "certify"])
def test_a_run_that_is_killed_within_the_step_does_not_go_back(world, searched, monkeypatch, moment):
    machine = Machine(monkeypatch, certified=[0.9])
    step, calls = getattr(machine, moment), []

    def dying(*args, **how):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return step(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(delivery, moment, dying)
        with pytest.raises(KeyboardInterrupt):
            delivered(world, searched)
    missed = machine.finished[0]
    machine.finished.clear()
    summary = delivered(world, searched)
    assert missed not in machine.finished
    assert len(machine.finished) == 1
    assert [step["target_met"] for step in summary["steps"]] == [False, True]


def test_a_miss_that_is_the_fastest_now_is_certified_once_more(world, searched, monkeypatch):
    _leave_the_fastest(monkeypatch)
    machine = Machine(monkeypatch)
    with History.read(searched) as history:
        number = _fastest(history.trials).number
    write_steps(steps_of(searched), [Step(number, 0.9, False)], BUDGET)
    summary = delivered(world, searched)
    assert [step["trial"] for step in summary["steps"]] == [number, number]
    assert len(machine.finished) == 1


def test_steps_of_a_search_that_has_gone_on_since_count_no_more(world, run, monkeypatch):
    write_steps(steps_of(run), [Step(0, 0.9, False)], BUDGET)
    Machine(monkeypatch)
    summary = delivered(world, run, budget=BUDGET + 1)
    assert len(summary["steps"]) == 1


# Tables of another device or workload


@pytest.mark.parametrize(
    ("table", "made_for"),
    [
        (make_table(device_name="Other CPU"), "batch 1 x 16 tokens, float32, eager on cpu Other CPU"),
        (make_table(workload=Workload(4, 16)), "batch 4 x 16 tokens, float32, eager on cpu "),
    ],
    ids=["device", "workload"],
)
def test_with_the_table_of_another_device_the_choice_is_by_prediction(
    world, searched, monkeypatch, table, made_for
):
    table.save(searched / "latency.json")
    machine = Machine(monkeypatch)
    summary = delivered(world, searched, allow_foreign_table=True)
    prediction, best = summary["prediction"], summary["best"]
    assert prediction["made_for"].startswith(made_for)
    full_ms = table([SHAPE.full])[0]
    assert prediction["ratio"] == pytest.approx(best["predicted_latency_ms"] / full_ms)
    assert prediction["ratio"] <= 0.75
    assert machine.looked_at == []
    assert summary["target_met"] is None
    assert summary["steps"] == [
        {"trial": best["trial"], "latency_ratio": summary["latency_ratio"], "target_met": None}
    ]
    assert summary["device"] == describe_device("cpu").to_dict()
    assert summary["workload"] == WORKLOAD.to_dict()
    assert read_json(searched / "best" / "certificate.json")["prediction"] == prediction
    assert table.device.name in summary["latency_model"]["foreign_note"]
    assert table.device.name in (searched / "report.html").read_text()


def test_with_the_table_of_another_version_the_choice_is_measured(world, searched, monkeypatch):
    device = describe_device("cpu")
    older = replace(device, versions={**device.versions, "torch": "1.0"})
    replace(make_table(), device=older).save(searched / "latency.json")
    machine = Machine(monkeypatch)
    summary = delivered(world, searched, allow_foreign_table=True)
    assert summary["prediction"] is None
    regime = find_regime(make_table())
    assert summary["regime"] == {**regime.to_dict(), "sentence": str(regime)}
    assert summary["target_met"] is True
    assert len(machine.looked_at) == 1
    assert "torch 1.0" in summary["latency_model"]["foreign_note"]


def test_the_lengths_of_the_task_are_what_is_timed(world, searched, monkeypatch):
    settings = read_json(searched / "config.json")
    write_json(searched / "config.json", settings | {"lengths_from_task": "True"})
    (searched / "history.sqlite").unlink()
    (searched / "latency.json").unlink()
    found = prepare_inputs(
        world.job(lengths_from_task=True, allow_foreign_table=True), RunFolder(searched), progress=False
    )
    replace(make_table(), workload=found.workload).save(searched / "latency.json")
    Machine(monkeypatch)
    summary = delivered(world, searched, lengths_from_task=True, budget=16)
    assert summary["workload"] == found.workload.to_dict()
    assert summary["workload"]["lengths"] == list(found.workload.lengths) != []
    assert summary["prediction"] is None
    regime = find_regime(make_table())
    assert summary["regime"] == {**regime.to_dict(), "sentence": str(regime)}


def test_a_reward_without_a_target_leaves_the_target_out(world, tmp_path, finished, monkeypatch):
    space = LayerwiseSpace.for_model(SHAPE)
    monkeypatch.setattr(FullTrainer, "train", None)  # the baseline is that of the finished run
    (tmp_path / "full").symlink_to(finished / "full")
    (tmp_path / "data").symlink_to(finished / "data")
    (tmp_path / "supernet").symlink_to(finished / "supernet")
    expected = {}

    def remembered(*args):
        expected.update(_expected_accuracies(*args))
        return expected

    monkeypatch.setattr(delivery, "_expected_accuracies", remembered)
    job = replace(world.job(), reward=lambda metrics: metrics.accuracy, budget=16)
    summary = run_job(job, tmp_path, progress=False)
    assert summary["target_ratio"] is summary["target_ms"] is summary["target_met"] is None
    assert SubnetConfig.from_dict(summary["best"]["config"]) in space
    assert len(expected) == 16
    assert summary["best"]["expected_accuracy"] == max(expected.values())
    assert expected[summary["best"]["trial"]] == max(expected.values())


def test_without_a_last_training_the_best_of_the_repaired_is_taken(world, searched, monkeypatch):
    Machine(monkeypatch)
    asked = []

    def remembered(_job, _inputs, trials, *, progress):
        asked.extend(trials)
        assert progress is False
        labels = load_labels()
        right, wrong = Repaired(labels, 1.0), Repaired(1 - labels, 0.0)
        return {trial.number: right if trial is trials[0] else wrong for trial in trials}

    def load_labels():
        return read_task(searched / "data").search.labels

    monkeypatch.setattr(delivery, "repaired_finalists", remembered)
    settings = read_json(searched / "config.json")
    write_json(searched / "config.json", settings | {"finish_epochs": "0"})
    (searched / "history.sqlite").unlink()
    schedule = replace(world.job().schedule, finish_epochs=0)
    summary = delivered(world, searched, schedule=schedule, budget=16)
    assert len(asked) > 1
    assert summary["best"]["trial"] == asked[0].number
    assert summary["best"]["repaired_accuracy"] == 1.0
    assert "repair" in summary["seconds"]


# Several targets


RATIOS = (0.5, 0.75)
FOR_A_TARGET = {
    *("folder", "target_ratio", "target_ms", "target_met", "full", "best", "latency_ratio"),
    *("latency_ratio_ci", "loss_points", "loss_ci", "note", "prediction", "steps", "confirmations"),
}


@pytest.fixture(scope="module")
def served(world, finished, tmp_path_factory):
    """A finished run for several targets; not to be changed."""
    path = tmp_path_factory.mktemp("several") / "run"
    return several(world, finished, path)


def several(world, finished, path):
    for name in ("data", "supernet", "full"):
        shutil.copytree(finished / name, path / name)
    shutil.copy(finished / "latency.json", path)
    with pytest.MonkeyPatch.context() as patch:
        Machine(patch)
        run_job(world.job(target_ratios=RATIOS), path, progress=False)
    return path


@pytest.fixture
def begun_for_several(served, tmp_path):
    """A copy of it from which nothing was delivered."""
    path = tmp_path / "several"
    shutil.copytree(served, path)
    (path / "summary.json").unlink()
    return path


def test_several_targets_get_a_model_each(served):
    summary = read_json(served / "summary.json")
    assert [entry["target_ratio"] for entry in summary["targets"]] == list(RATIOS)
    assert [entry["folder"] for entry in summary["targets"]] == ["models/0.5", "models/0.75"]
    assert not (served / "best").exists()
    assert not (served / "checkpoints").exists()
    for entry in summary["targets"]:
        folder = served / entry["folder"]
        certificate = read_json(folder / "certificate.json")
        assert set(entry) == FOR_A_TARGET
        assert certificate["latency_ratio"] == entry["latency_ratio"]
        assert certificate["target_ratio"] == entry["target_ratio"]
        assert certificate["steps"] == entry["steps"]
        assert entry["target_met"] is True
        assert read_json(folder / "subnet.json") == entry["best"]["config"]


def test_the_summary_of_several_targets_has_the_rest_in_common(served):
    summary = read_json(served / "summary.json")
    assert set(summary) == KEYS - FOR_A_TARGET | {"targets"}
    assert read_summary(served) == summary
    assert summary["n_trials"] == BUDGET


def test_each_target_has_the_best_of_what_meets_it(served):
    with History.read(served) as history:
        trials = history.trials
    full_ms = make_table()([SHAPE.full])[0]
    for entry in read_json(served / "summary.json")["targets"]:
        reward = LatencyTarget(target_ms=entry["target_ratio"] * full_ms)
        best, trial = entry["best"], trials[entry["best"]["trial"]]
        assert entry["target_ms"] == pytest.approx(reward.target_ms)
        assert best["reward"] == reward(trial.metrics)
        fitting = [t for t in trials if t.metrics.latency_ms <= MARGIN * reward.target_ms]
        assert best["reward"] == max(reward(t.metrics) for t in fitting)


def test_the_finalists_of_all_targets_are_measured_once(world, begun_for_several, monkeypatch):
    machine, measured = Machine(monkeypatch), []
    step = machine.measure_trials

    def counted(timed, trials, device):
        measured.append([trial.number for trial in trials])
        return step(timed, trials, device)

    monkeypatch.setattr(delivery, "measure_trials", counted)
    monkeypatch.setattr(FullTrainer, "train", None)  # nor is the baseline trained again
    summary = delivered(world, begun_for_several, target_ratios=RATIOS)
    (numbers,) = measured
    assert len(set(numbers)) == len(numbers)
    assert {entry["best"]["trial"] for entry in summary["targets"]} <= set(numbers)


def test_a_miss_makes_a_step_for_its_own_target(world, begun_for_several, monkeypatch):
    machine = Machine(monkeypatch, certified=[0.4, 0.9])
    summary = delivered(world, begun_for_several, target_ratios=RATIOS)
    first, second = summary["targets"]
    assert [step["target_met"] for step in first["steps"]] == [True]
    assert [step["target_met"] for step in second["steps"]] == [False, True]
    assert len(machine.finished) == 3


@pytest.mark.parametrize("nth", [2, 3])
def test_a_run_that_is_killed_between_targets_goes_on_there(world, begun_for_several, monkeypatch, nth):
    machine = Machine(monkeypatch, certified=[0.4, 0.9])
    step, calls = machine.finish_subnet, []

    def dying(*args, **how):
        calls.append(args)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return step(*args, **how)

    with monkeypatch.context() as patch:
        patch.setattr(delivery, "finish_subnet", dying)
        with pytest.raises(KeyboardInterrupt):
            delivered(world, begun_for_several, target_ratios=RATIOS)
    assert len(machine.finished) == nth - 1
    summary = delivered(world, begun_for_several, target_ratios=RATIOS)
    assert len(machine.finished) == 3  # as in an unbroken run
    assert [step["target_met"] for step in summary["targets"][0]["steps"]] == [True]
    assert [step["target_met"] for step in summary["targets"][1]["steps"]] == [False, True]


def test_targets_of_a_search_that_has_gone_on_since_are_delivered_anew(
    world, begun_for_several, monkeypatch
):
    machine = Machine(monkeypatch)
    for ratio in ("0.5", "0.75"):
        stored = begun_for_several / "checkpoints" / f"delivered-{ratio}.json"
        stored.parent.mkdir(exist_ok=True)
        write_json(stored, {"n_trials": BUDGET, "model": {}})
    summary = delivered(world, begun_for_several, target_ratios=RATIOS, budget=BUDGET + 1)
    assert len(machine.finished) == 2
    assert all(entry["best"] for entry in summary["targets"])


def test_several_targets_with_the_table_of_another_device(world, begun_for_several, monkeypatch):
    make_table(device_name="Other CPU").save(begun_for_several / "latency.json")
    Machine(monkeypatch)
    summary = delivered(world, begun_for_several, allow_foreign_table=True, target_ratios=RATIOS)
    for entry in summary["targets"]:
        assert entry["target_met"] is None
        assert entry["prediction"]["ratio"] <= entry["target_ratio"]


def test_the_report_shows_all_targets(served):
    page = (served / "report.html").read_text()
    assert "Models by target" in page
    for ratio in RATIOS:
        assert f"Target {ratio:g}" in page
        assert f"models/{ratio:g}" in page
    assert page.count('class="target"') == len(RATIOS)


@pytest.mark.parametrize("bits", [True, False])
def test_luck_is_averaged_out_only_where_answers_to_single_items_were_kept(bits):
    task = additive_task(LayerwiseSpace((LayerOptions((0, 1, 2, 3), (0, 1, 2)),) * 3), noise=0.0)
    rng = np.random.default_rng(0)
    trials = []
    for number in range(40):
        config = task.space.sample(rng)
        right = rng.random(200) < task([config])[0].accuracy
        correct = np.packbits(right).tobytes() if bits else None
        metrics = Metrics(right.mean(), n_items=200, correct=correct)
        trials.append(Trial(number, config, metrics, metrics.accuracy))
    inputs, evaluator = SimpleNamespace(space=task.space), SimpleNamespace(kept_importance=None)
    expected = _expected_accuracies(inputs, evaluator, Result(tuple(trials), np.zeros(0), "enough"))
    if not bits:
        assert expected == {}
        return
    truth = np.array([task([trial.config])[0].accuracy for trial in trials])
    seen = np.array([trial.metrics.accuracy for trial in trials])
    smoothed = np.array([expected[trial.number] for trial in trials])
    assert np.mean((smoothed - truth) ** 2) < 0.7 * np.mean((seen - truth) ** 2)

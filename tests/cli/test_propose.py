from __future__ import annotations

import json
from dataclasses import replace

import pytest

import rlnas.run.proposals
from rlnas.cli import main
from rlnas.history import History
from rlnas.run.folder import read_json
from rlnas.run.proposals import Proposal


@pytest.fixture
def proposed(monkeypatch, finished):
    """Lets the policy propose trial 5, trial 7 as if raced out, and trial 9 as if it were not known."""
    with History.read(finished) as history:
        trials = history.trials
    raced = replace(trials[7], metrics=replace(trials[7].metrics, raced_out=True, correct=None))
    proposals = [
        Proposal(trials[5].config, 0.5, 0.463, trials[5]),
        Proposal(raced.config, 0.52, 0.481, raced),
        Proposal(trials[9].config, 0.6, 0.556, None),
    ]
    asked = []

    def propose(run, target_ratio, n=1):
        asked.append((run, target_ratio, n))
        return proposals[:n]

    monkeypatch.setattr(rlnas.run.proposals, "propose", propose)
    return proposals, asked


def test_proposals_say_what_is_known_of_them(finished, proposed, capsys):
    proposals, asked = proposed
    assert main(["propose", str(finished), "--target-ratio", "0.55", "--n", "3"]) == 0
    assert asked == [(finished, 0.55, 3)]
    first, second, third = capsys.readouterr().out.splitlines()
    metrics = proposals[0].trial.metrics
    low, high = metrics.accuracy_ci
    assert first == (
        f"1. {proposals[0].config}: 0.5 ms predicted, 0.463 of the full model's; accuracy "
        f"{metrics.accuracy:.3f} [{low:.3f}, {high:.3f}] on the search split (trial 5)"
    )
    assert second.endswith(": trial 7 was raced out")
    assert third.endswith("; accuracy not known: the search did not judge it")


def test_an_accuracy_without_an_interval_stands_alone(finished, proposed, capsys):
    proposals, _ = proposed
    metrics = replace(proposals[0].trial.metrics, accuracy_ci=None)
    proposals[0] = replace(proposals[0], trial=replace(proposals[0].trial, metrics=metrics))
    assert main(["propose", str(finished), "--target-ratio", "0.55"]) == 0
    assert f"accuracy {metrics.accuracy:.3f} on the search split" in capsys.readouterr().out


def test_the_first_proposal_is_exported(finished, proposed, tmp_path, capsys):
    out = tmp_path / "proposed"
    flags = ("--target-ratio", "0.55", "--n", "2", "--out", str(out))
    assert main(["propose", str(finished), *flags]) == 0
    expected = proposed[0][0].config.to_dict()
    assert read_json(out / "subnet.json") == expected
    lines = capsys.readouterr().out.splitlines()
    assert json.loads(lines[2]) == expected
    assert lines[3] == f"model: {out}"


def test_a_proposal_overwrites_nothing(finished, tmp_path, refused):
    (tmp_path / "mine").write_text("precious")
    arguments = ["propose", finished, "--target-ratio", "0.5", "--out", tmp_path]
    refused(arguments, "is there already; delete it or give another folder")


def test_a_run_whose_controller_saves_no_policy(finished, refused):
    message = "holds no policy that answers any target: the controllers auto and ppo save one in policy/"
    refused(["propose", finished, "--target-ratio", "0.5"], message)


def test_a_proposal_needs_a_target(misused):
    misused(["propose", "run"], "the following arguments are required: --target-ratio")

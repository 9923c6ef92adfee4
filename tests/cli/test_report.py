from __future__ import annotations

import pytest
from world import BUDGET

from rlnas.cli import main
from rlnas.run.folder import write_json


def test_a_report_is_printed_and_written_anew(run, capsys):
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert "chosen subnet" in capsys.readouterr().out
    assert (run / "report.html").read_text() == before


def test_a_report_of_an_unfinished_run_says_how_far_it_is(unfinished, refused):
    line = refused(["report", unfinished], f"run' is not finished: {BUDGET} subnets are scored, finished")
    assert "finished phases: data, calibrate, finetune, importance, share, search" in line
    assert line.endswith("go on with --resume")


def test_a_report_of_a_run_that_has_just_begun(tmp_path, refused):
    write_json(tmp_path / "config.json", {})
    refused(["report", tmp_path], "is not finished: 0 subnets are scored, finished phases: none; go on")


def test_a_report_of_what_is_no_run(tmp_path, refused):
    message = r"holds no run: '.*config.json' is missing; give the folder of a run \(its --out\)"
    refused(["report", tmp_path], message)
    (tmp_path / "file").write_text("")
    refused(["report", tmp_path / "file"], "file' is a file; give the folder of a run")


def test_a_report_of_a_missing_run_guesses(run, refused):
    message = r"/rum/config.json' is missing; did you mean '.*/run'\?"
    refused(["report", run.parent / "rum"], message)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", "{", "summary.json is damaged: it is no JSON"),
        ("summary.json", "{}", "summary.json is damaged: model is missing"),
        ("history.sqlite", "no database " * 1000, "history.sqlite is not a sound history"),
        ("config.json", "{", "config.json' is damaged"),
    ],
)
def test_a_report_of_a_damaged_run(run, refused, file, content, message):
    (run / file).write_text(content)
    refused(["report", run], message)


def test_a_report_of_a_damaged_unfinished_run(unfinished, refused):
    (unfinished / "phases.json").write_text("{")
    refused(["report", unfinished], r"phases.json' is damaged")


def test_a_report_of_several_targets(several, capsys):
    assert main(["report", str(several)]) == 0
    printed = capsys.readouterr().out
    assert "subnet for 0.5" in printed
    assert f"model: {several / 'models' / '0.75'}\n" in printed

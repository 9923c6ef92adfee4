from __future__ import annotations

import rlnas.run.calibration


def test_calibrate_does_not_measure_what_it_cannot_write(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    (tmp_path / "file").write_text("")
    arguments = ["calibrate", "--model", world.model, "--out", tmp_path / "file" / "table.json"]
    refused(arguments, r"cannot make the folder of '.*file/table.json'.*: (Not a directory|File exists)")


def test_calibrate_refuses_a_folder_and_a_seed_before_it_measures(world, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(rlnas.run.calibration, "calibrate", None)
    arguments = ["calibrate", "--model", world.model, "--out"]
    refused([*arguments, tmp_path], r"is a folder; name a file, such as .*latency\.json$")
    refused([*arguments, tmp_path / "t.json", "--seed", "-3"], "seed must be at least 0, but got seed=-3")

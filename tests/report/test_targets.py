"""Several targets have a table; a single one has none."""

from __future__ import annotations

from typing import Any

from rlnas.report.targets import targets_section


def test_a_run_for_one_target_has_no_such_section(summary: dict[str, Any]):
    assert targets_section(summary) == []


def test_every_target_has_a_row_with_its_verdict_and_its_model(several: dict[str, Any]):
    several["targets"][0] |= {"target_met": False, "folder": "models/<0.25>"}
    several["targets"][1]["target_met"] = None
    (page,) = targets_section(several)
    rows = page.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")[:-1]
    assert [row.split("</th>")[0].removeprefix("<tr><th>") for row in rows] == ["0.25", "0.5", "0.75"]
    assert [word for row in rows for word in ("yes", "no", "not known") if f"<td>{word}</td>" in row] == [
        *("no", "not known", "yes")
    ]
    assert "models/&lt;0.25&gt;" in rows[0]
    assert "<td>0.490</td><td>[0.485, 0.495]</td>" in rows[1]
    assert "2.1 [0.3, 3.9]" in rows[2]


def test_steps_and_milliseconds_stand_below(several: dict[str, Any]):
    several["targets"][2]["steps"] = [
        {"trial": 4, "latency_ratio": 0.9, "target_met": False},
        {"trial": 7, "latency_ratio": 0.7, "target_met": True},
    ]
    (page,) = targets_section(several)
    assert "Target 0.75: A miss triggers a step to the next candidate; certified were trial 4" in page
    assert "Target 0.25: Median latency: the chosen subnet 6.83 ms" in page

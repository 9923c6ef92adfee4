"""Write tables into README.md, between their marks: of a finished run, or of a benchmark's last lines."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.compression_figures import FULL, TRAINED
from benchmarks.quality_figures import OVERALL, SYNTHETIC
from rlnas.report import format_table, read_summary

RESULTS = Path(__file__).parent / "results"
LISTS = {
    "random": "256 random ones",
    "ppo25": "256 that PPO proposes after 25 % of a search",
    "ppo75": "256 that PPO proposes after 75 % of a search",
    "all": "all 4,096 of the space",
}


def main() -> None:
    """Replace what stands between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--table",
        choices=["demo", "evaluation", "latency", "search", "compression"],
        default="demo",
        help="which table",
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="run folder of the demo table")
    parser.add_argument(
        "--results", type=Path, help="results of the benchmark; by default those in benchmarks/results"
    )
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    options = parser.parse_args()
    if options.table == "demo":
        block = f"```\n{format_table(read_summary(options.run))}\n```"
    elif options.table == "evaluation":
        lines = _lines(options.results or RESULTS / "evaluation.jsonl")
        block = evaluation_table([line for line in lines if "us_per_token_all" in line["figures"]][-1])
    elif options.table == "latency":
        block = latency_table(_lines(options.results or RESULTS / "latency_model.jsonl"))
    elif options.table == "compression":
        block = compression_table(_lines(options.results or RESULTS / "compression.jsonl")[-1])
    else:
        lines = _lines(options.results or RESULTS / "search_quality.jsonl")
        single, several = (_with_part(part, lines) for part in ("single", "one"))
        if not single or not several:
            parser.error("the results have no lines of the parts single and one; run search_quality")
        block = search_table(single[-1], several[-1])
    start = f"<!-- {options.table} table: written by benchmarks/readme_table.py -->"
    end = f"<!-- end of {options.table} table -->"
    text = options.readme.read_text(encoding="utf-8")
    if text.count(start) != 1 or text.count(end) != 1:
        parser.error(f"{options.readme} does not hold the two marks of {options.table} once each")
    pattern = re.compile(re.escape(start) + ".*" + re.escape(end), re.DOTALL)
    block = f"{start}\n{block}\n{end}"
    options.readme.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")
    print(json.dumps({"n_lines": block.count("\n") + 1}))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def latency_table(lines: list[dict[str, Any]]) -> str:
    """Errors of latency tables and of what they have to beat: each case as it was last measured."""
    rows: dict[tuple[Any, ...], str] = {}
    for line in lines:
        for case in line["figures"]["cases"]:
            if case.get("statistic", "median") != "median":
                continue
            case = {"dtype": line["settings"]["dtype"], **case}
            key = tuple(case[name] for name in ("model", "batch_size", "seq_len", "dtype", "mode"))
            taus = (case["tau_within_depth"], case["tau_ceiling"])
            cells = [*map(str, key), f"{case['mape']:.1%} ({case['p95']:.1%})"]
            cells += [f"{case[name]:.1%}" for name in ("flops_only_mape", "depth_only_mape", "noise")]
            cells += ["-" if tau is None else f"{tau:.2f}" for tau in taus]
            rows[key] = f"| {' | '.join(cells)} |"
    last = lines[-1]
    commits = ", ".join(dict.fromkeys(str(line["commit"]) for line in lines))
    n_held_out = last["figures"]["cases"][-1]["n_held_out"]
    note = (
        f"\nMean absolute error of predicted latencies (95 % quantile in brackets) on {n_held_out} random "
        "subnets of all depths that no fit has seen; of lines fitted to counts of FLOPs and of blocks; "
        "difference of two measurements of one subnet; rank correlation (Kendall) among subnets of equally "
        "many blocks, and what noise lets a perfect table reach. "
        f"{last['device']}, commits {commits}."
    )
    head = (
        "| model | batch | tokens | dtype | mode | table | FLOPs | blocks | noise | tau | at most |",
        "|---|---:|---:|---|---|---:|---:|---:|---:|---:|---:|",
    )
    return "\n".join([*head, *rows.values(), note])


def evaluation_table(line: dict[str, Any]) -> str:
    """Microseconds per subnet and token of every way, and how much cheaper the last one is."""
    figures = line["figures"]
    rows = [
        "| subnets of a 4-option space | masks | extracted | rlnas | against masks | against extracted |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, words in LISTS.items():
        times = figures[f"us_per_token_{name}"]
        cells = [f"{times[way]:.0f}" for way in ("masks", "extracted", "rlnas")]
        cells += [f"{figures[f'vs_{rival}_{name}']:.1f} x" for rival in ("masks", "extracted")]
        rows.append(f"| {words} | {' | '.join(cells)} |")
    note = (
        f"\nMicroseconds of one thread per subnet and token, and medians of {line['settings']['repeats']} "
        f"interleaved ratios; masks in float32, the others in {figures['precision']}; "
        f"{figures['n_items']} search items of sst2, MiniLM, {line['device']}, commit "
        f"{line['commit']}."
    )
    return "\n".join([*rows, note])


def _with_part(part: str, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of whole runs that have a part."""
    return [line for line in lines if part in line["settings"]["parts"] and not line["settings"]["quick"]]


def search_table(line: dict[str, Any], several: dict[str, Any]) -> str:
    """Regret of every method, and what the subject adds to the best control on each task.

    Args:
        line: Of the part ``single``.
        several: Of the part ``one``; perhaps the same.
    """
    figures, settings = line["figures"], line["settings"]
    seven = several["figures"]["seven_targets"]
    budgets = list(next(iter(figures["regret"].values())))
    rows = [
        f"| method | {' | '.join(budgets)} | items seen | seven targets | controller |",
        "|---|" + "---:|" * (len(budgets) + 3),
    ]
    for method, by_budget in sorted(figures["regret"].items(), key=lambda row: row[1][budgets[-1]]):
        seen = figures["seen_detail"][OVERALL][method][budgets[-1]][0]
        values = [*by_budget.values(), seen, seven.get(method, float("nan"))]
        cells = [f"{100 * value:.2f}" for value in values]
        rows.append(f"| {method} | {' | '.join(cells)} | {figures['controller_ms'][method]:.1f} ms |")
    rows += ["", *_added_rows("one target", figures["single_against_best_control"])]
    rows += ["", *_added_rows("seven targets", several["figures"]["one_against_best_control"])]
    tasks = [scope for scope in figures["single_detail"] if scope != OVERALL]
    real = [task for task in tasks if not task.startswith(SYNTHETIC)] or tasks
    noise = figures["regret_of_exhaustive_search"]["single"]
    exhaustive = ", ".join(f"{task} {100 * regret:.2f}" for task, regret in noise.items())
    note = (
        f"\nRegret in points of accuracy, interquartile means over {', '.join(real)} and "
        f"{settings['seeds']} seeds, target ratio {settings['target']:g}, after so many true evaluations; "
        "the last one also on the items that methods see. Seven targets: all from one search of "
        f"{several['settings']['budget']}, {several['settings']['seeds']} seeds. "
        "Below: surrogate-ppo minus the control that is best there, on the same "
        "seeds (below 0 it has less regret), with 95 % intervals. Who sees every subnet on half of the "
        f"items, and takes what looks best, has a regret of {exhaustive}. {line['device']}, commits "
        f"{', '.join(figures['commits'])}."
    )
    return "\n".join([*rows, note])


def compression_table(line: dict[str, Any]) -> str:
    """Scores of every method by task and target, trained and without training; and who wins."""
    figures, settings = line["figures"], line["settings"]
    cells = {
        (cell["task"], cell["target"], cell["method"], cell["training"]): cell for cell in figures["cells"]
    }
    columns = list(dict.fromkeys((cell["method"], cell["training"]) for cell in figures["cells"]))
    columns.remove((FULL, TRAINED))
    titles = [method if training == TRAINED else f"{method}, {training}" for method, training in columns]
    rows = [f"| task | ratio | full | {' | '.join(titles)} |", "|---|---:|---:|" + "---:|" * len(columns)]
    for task, target in dict.fromkeys(
        (c["task"], c["target"]) for c in figures["cells"] if c["target"] < 1
    ):
        ratios = [c["latency_ratio"] for key, c in cells.items() if key[:2] == (task, target)]
        texts = [f"{100 * cells[task, 1.0, FULL, TRAINED]['accuracy']:.1f}"]
        for column in columns:
            cell = cells.get((task, target, *column))
            texts.append("-" if cell is None else f"{100 * cell['accuracy']:.1f}")
        rows.append(f"| {task} | {min(ratios):.2f} to {max(ratios):.2f} | {' | '.join(texts)} |")
    fulls = [cell for cell in figures["cells"] if cell["method"] == FULL]
    items = ", ".join(f"{cell['task']} {cell['n_items']:,}" for cell in fulls)
    seeds = ", ".join(f"{cell['task']} {len(cell['seeds'])}" for cell in fulls)
    note = (
        "\nAccuracy in percent (cola: Matthews correlation) on the final split, validation and test "
        f"pooled ({items} items), mean of seeds ({seeds}); "
        "measured latency over the full model's, at batch 1 x 64 tokens; "
        f"{settings['train_items']:,} training items at most, {settings['full_epochs']} passes of the full "
        f"model, {settings['epochs']} of a trained subnet. "
        f"rlnas wins over all rivals in {figures['n_won']} of {figures['n_counted']} cells (lower end of "
        "the paired 95 % interval above -0.5 points, mean not below 0): "
        f"{_wins(figures['pairs'])}. {line['device']}, commits {', '.join(_commits(figures))}."
    )
    return "\n".join([*rows, note])


def _wins(pairs: list[dict[str, Any]]) -> str:
    """How many comparisons with each rival are won, and the mean difference."""
    texts = []
    for rival, training in dict.fromkeys((pair["rival"], pair["training"]) for pair in pairs):
        own = [pair for pair in pairs if (pair["rival"], pair["training"]) == (rival, training)]
        mean = sum(pair["difference_points"] for pair in own) / len(own)
        name = rival if training == TRAINED else f"{rival}, {training}"
        texts.append(
            f"{sum(pair['win'] for pair in own)} of {len(own)} over {name} ({mean:+.1f} on average)"
        )
    return ", ".join(texts)


def _commits(figures: dict[str, Any]) -> list[str]:
    return sorted({commit for cell in figures["cells"] for commit in cell["commits"]})


def _added_rows(title: str, against: dict[str, Any]) -> list[str]:
    """By task and budget, what the subject adds to the best control."""
    budgets = list(next(iter(against.values())))
    rows = [f"| {title} | {' | '.join(budgets)} |", "|---|" + "---|" * len(budgets)]
    for scope, by_budget in against.items():
        cells = [
            "{:+.2f} [{:+.2f}, {:+.2f}] ({})".format(
                *(100 * v for v in found["difference"]), found["control"]
            )
            for found in by_budget.values()
        ]
        rows.append(f"| {scope} | {' | '.join(cells)} |")
    return rows


if __name__ == "__main__":
    main()

"""Answers of subnets to the items of a split, each computed once and kept in a file."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING

import numpy as np

from rlnas.metrics import Metrics
from rlnas.space import SubnetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from rlnas.evaluation import SupernetEvaluator
    from rlnas.protocols import LatencyModel
    from rlnas.task import Split


class KeptAnswers:
    """Whether subnets answer items rightly, and what it cost to find out.

    Args:
        evaluator: Answers what is not in the file yet; on `split`.
        split: Holds the labels.
        file: JSON lines, one a subnet; of this supernet and split alone.
    """

    def __init__(self, evaluator: SupernetEvaluator, split: Split, file: Path) -> None:
        self.evaluator = evaluator
        self._split = split
        self._file = file
        self._known: dict[SubnetConfig, tuple[npt.NDArray[np.uint8], float]] = {}
        self._read()

    def right(self, configs: Sequence[SubnetConfig]) -> npt.NDArray[np.bool_]:
        """Shape ``(len(configs), len(split))``; subnets that are not known yet are judged together."""
        missing = [config for config in dict.fromkeys(configs) if config not in self._known]
        if missing:
            self._judge(missing)
        packed = np.stack([self._known[config][0] for config in configs])
        return np.unpackbits(packed, axis=1, count=len(self._split)).astype(np.bool_)

    @property
    def n_items(self) -> int:
        """Items of the split."""
        return len(self._split)

    def seconds(self, config: SubnetConfig) -> float:
        """Processor time that a known subnet took: its share of the batch that it was judged in."""
        return self._known[config][1]

    def _judge(self, configs: Sequence[SubnetConfig]) -> None:
        started = time.process_time()
        right = np.array(self.evaluator.predict(configs)) == self._split.labels
        seconds = (time.process_time() - started) / len(configs)
        lines = []
        for config, packed in zip(configs, np.packbits(right, axis=1), strict=True):
            self._known[config] = packed, seconds
            text = base64.b64encode(packed.tobytes()).decode()
            line = {"config": config.to_dict(), "right": text, "seconds": seconds}
            lines.append(json.dumps(line) + "\n")
        with self._file.open("a", encoding="utf-8") as file:
            file.write("".join(lines))

    def _read(self) -> None:
        """Take up what is there, but for a last line that was cut short by a kill."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        text = self._file.read_text(encoding="utf-8") if self._file.is_file() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            self._file.write_text(whole, encoding="utf-8")
        for line in map(json.loads, whole.splitlines()):
            packed = np.frombuffer(base64.b64decode(line["right"]), dtype=np.uint8)
            self._known[SubnetConfig.from_dict(line["config"])] = packed, line["seconds"]


class KeepingEvaluator:
    """Accuracies by answers that are kept, latencies and importance by the evaluator behind them.

    Args:
        answers: May be shared by several searches.

    Attributes:
        seconds: Processor time spent in here so far.
    """

    def __init__(self, answers: KeptAnswers) -> None:
        self._answers = answers
        self.seconds = 0.0

    @property
    def latency(self) -> LatencyModel:
        """Predicts latencies."""
        return self._answers.evaluator.latency

    @property
    def importance(self) -> npt.NDArray[np.float64] | None:
        """Of the block at each position."""
        return self._answers.evaluator.importance

    @property
    def kept_importance(self) -> Callable[[Sequence[SubnetConfig]], Sequence[float]] | None:
        """Of what each config keeps."""
        return self._answers.evaluator.kept_importance

    def __call__(self, configs: Sequence[SubnetConfig]) -> list[Metrics]:
        """Metrics of each config, in the same order."""
        started = time.process_time()
        right, latencies = self._answers.right(configs), self.latency(configs)
        judged = [
            Metrics(
                float(row.mean()),
                float(latency_ms),
                n_items=len(row),
                correct=np.packbits(row).tobytes(),
            )
            for row, latency_ms in zip(right, latencies, strict=True)
        ]
        self.seconds += time.process_time() - started
        return judged

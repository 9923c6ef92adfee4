"""A program that runs `rlnas` in children of its own, and kills them at named moments.

It imports everything once and then forks, so an attempt costs no imports. Each line of its input is
an attempt: ``{"arguments": [...], "moment": "share:begin", "nth": 1, "delay": 0.05}``. The child stops at
every moment and waits for leave to go on; at the named one it is killed there and then, or (with a
delay) somewhere behind it. Without a moment it may run to its end. The answer is one line, too.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path

import rlnas.auto.entrants
import rlnas.auto.learner
import rlnas.auto.record
import rlnas.controllers.ppo
import rlnas.run.calibration
import rlnas.run.delivery
import rlnas.run.training
from rlnas.calibration import Effort
from rlnas.cli import main
from rlnas.evaluation import SupernetEvaluator
from rlnas.history import History
from rlnas.supernet import FullTrainer, SandwichTrainer, Supernet

STEPS = {
    "calibrate": (rlnas.run.calibration, "calibrate"),
    "finetune": (FullTrainer, "train"),
    "prepare": (rlnas.run.training, "prepare"),
    "share": (SandwichTrainer, "share"),
    "save": (Supernet, "save"),
    "evaluate": (SupernetEvaluator, "__call__"),
    "append": (History, "append"),
    "look": (rlnas.auto.record.Record, "append"),
    "keep": (rlnas.auto.learner.FullLearner, "keep"),
    "measure": (rlnas.run.delivery, "measure_trials"),
    "finish": (rlnas.run.delivery, "finish_subnet"),
    "baseline": (rlnas.run.delivery, "train_baseline"),
    "certify": (rlnas.run.delivery, "certify"),
    "report": (rlnas.run.delivery, "write_report"),
}


class Moments:
    """The child's side: says where it is, and waits for leave."""

    def __init__(self, said: int, leave: int) -> None:
        self._said, self._leave = said, leave

    def say(self, **moment: object) -> None:
        os.write(self._said, json.dumps(moment).encode() + b"\n")
        os.read(self._leave, 1)

    def watch(self, name: str, owner: object, attribute: str) -> None:
        step = getattr(owner, attribute)

        @functools.wraps(step)
        def watched(*args: object, **kwargs: object) -> object:
            configs = [config.to_json() for config in args[1]] if name == "evaluate" else []
            self.say(moment=f"{name}:begin", configs=configs)
            result = step(*args, **kwargs)
            self.say(moment=f"{name}:end")
            return result

        setattr(owner, attribute, watched)


def live(arguments: list[str], said: int, leave: int, log: int) -> None:
    """What a child does."""
    os.dup2(log, 1)
    os.dup2(log, 2)
    quick = Effort(n_models=6, n_rounds=5, max_seconds=1.0)
    calibrate = rlnas.run.calibration.calibrate
    rlnas.run.calibration.calibrate = lambda *args, **how: calibrate(*args, **{**how, "effort": quick})
    rlnas.auto.entrants.MAX_SECONDS = 0.05
    moments = Moments(said, leave)
    for name, (owner, attribute) in STEPS.items():
        moments.watch(name, owner, attribute)
    os._exit(main(arguments))


def attempt(order: dict[str, object], folder: Path) -> dict[str, object]:
    """Run a child to its end, natural or not."""
    (hear, said), (leave, let_go) = os.pipe(), os.pipe()
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    child = os.fork()
    if child == 0:
        try:
            live(order["arguments"], said, leave, log)
        finally:
            os._exit(99)
    for end in (said, leave, log):
        os.close(end)
    n_left, evaluated = order.get("nth", 1), []
    with os.fdopen(hear) as lines:
        for line in lines:
            moment = json.loads(line)
            evaluated += moment.get("configs", [])
            n_left -= moment["moment"] == order.get("moment")
            if n_left == 0:
                if order.get("delay"):
                    os.write(let_go, b".")
                    time.sleep(order["delay"])
                os.kill(child, signal.SIGKILL)
                break
            os.write(let_go, b".")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(let_go)
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return {"status": status, "evaluated": evaluated, "rows": rows_of(folder), "names": names}


def rows_of(folder: Path) -> list[list[object]]:
    """The whole table, as it is on disk."""
    if not (folder / "history.sqlite").is_file():
        return []
    connection = sqlite3.connect(folder / "history.sqlite")
    try:
        return [list(row) for row in connection.execute("SELECT * FROM trials ORDER BY number")]
    except sqlite3.OperationalError:  # killed before the table was made
        return []
    finally:
        connection.close()


if __name__ == "__main__":
    for line in sys.stdin:
        order = json.loads(line)
        answer = attempt(order, Path(order["arguments"][order["arguments"].index("--out") + 1]))
        print(json.dumps(answer), flush=True)

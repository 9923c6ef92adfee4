from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from rlnas.errors import ScaleError
from rlnas.scale import pool as pooling
from rlnas.scale.cluster import WorkerNeeds
from rlnas.scale.pool import Pool
from rlnas.scale.shares import Shares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Doubler:
    """Answers with twice the rows; dies as often as its folder says."""

    def __init__(self, folder):
        self._folder = folder

    def prepare(self):
        if (Path(self._folder) / "unfit").exists():
            raise KeyError("unfit")

    def answer(self, rows):
        deaths = Path(self._folder) / "deaths"
        if deaths.is_file() and (left := int(deaths.read_text())):
            deaths.write_text(str(left - 1))
            os.kill(os.getpid(), signal.SIGKILL)
        if 13 in rows:
            raise KeyError("thirteen")
        time.sleep(0.01)
        return [2 * row for row in rows], os.getpid()


def doubled(pool, rows):
    found, workers = {}, set()
    for share, (answer, process) in pool.answers(Shares(rows, pool.n_workers), lambda share: (share,)):
        assert not found.keys() & set(share)
        found |= dict(zip(share, answer, strict=True))
        workers.add(process)
    return found, workers


def test_all_workers_answer_and_each_row_once(cluster, tmp_path):
    with closing(Pool(cluster, Doubler, (str(tmp_path),), 2)) as pool:
        rows = [row for row in range(100) if row != 13]
        pool.wait_for_all()
        found, workers = doubled(pool, rows)
    assert found == {row: 2 * row for row in rows}
    assert len(workers) == 2


def test_workers_that_are_killed_lose_nothing_and_count_nothing_twice(cluster, tmp_path):
    (tmp_path / "deaths").write_text("3")
    with closing(Pool(cluster, Doubler, (str(tmp_path),), 2)) as pool:
        rows = [row for row in range(60) if row != 13]
        found, _ = doubled(pool, rows)
        assert pool.n_lost == 3
    assert found == {row: 2 * row for row in rows}


def test_workers_that_keep_dying_end_it(cluster, tmp_path):
    (tmp_path / "deaths").write_text("1000")
    with (
        closing(Pool(cluster, Doubler, (str(tmp_path),), 2)) as pool,
        pytest.raises(
            ScaleError, match="8 workers in a row have died without an answer, the last one so: "
        ),
    ):
        doubled(pool, range(10))


@pytest.mark.parametrize("n_workers", [1, 2])
def test_what_a_worker_raises_is_raised_and_the_pool_stays_usable(cluster, tmp_path, n_workers):
    with closing(Pool(cluster, Doubler, (str(tmp_path),), n_workers)) as pool:
        with pytest.raises(KeyError, match="thirteen"):
            doubled(pool, range(20))
        assert doubled(pool, range(5))[0] == {row: 2 * row for row in range(5)}


def test_what_speaks_against_a_worker_is_raised_at_once(cluster, tmp_path):
    (tmp_path / "unfit").touch()
    with (
        closing(Pool(cluster, Doubler, (str(tmp_path),), 2)) as pool,
        pytest.raises(KeyError, match="unfit"),
    ):
        doubled(pool, range(5))
    assert pool.n_lost == 0


def test_a_pool_that_was_closed_gives_room_and_starts_again(cluster, tmp_path):
    first, second = (Pool(cluster, Doubler, (str(tmp_path),), 4) for _ in range(2))
    for pool in (first, second, first):
        assert len(doubled(pool, range(10))[0]) == 10
        pool.close()


def test_workers_for_which_there_is_no_room_are_told(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(pooling, "START_SECONDS", 2.0)
    with (
        closing(Pool(cluster, Doubler, (str(tmp_path),), 1, WorkerNeeds(n_cpus=64))) as pool,
        pytest.raises(
            ScaleError, match=r"no worker was ready within 2 s: .*n_cpus=64.* has 4 CPU, 1 edge;"
        ),
    ):
        doubled(pool, range(3))


def test_fewer_workers_than_wanted_do_all(cluster, tmp_path):
    with closing(Pool(cluster, Doubler, (str(tmp_path),), 9)) as pool:
        found, workers = doubled(pool, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    assert len(found) == 12
    assert 1 <= len(workers) <= 4


def test_no_workers_are_refused(cluster):
    with pytest.raises(ValueError, match="n_workers must be at least 1, but got n_workers=0"):
        Pool(cluster, Doubler, ("",), 0)

from __future__ import annotations

import json
import lzma
import subprocess
import sys

import numpy as np
import pytest

from rlnas.errors import DataError, RunFolderError
from rlnas.tabular.store import MAGIC, load_bench, model_from_dict, model_to_dict, save_bench


@pytest.fixture
def stored(bench, tmp_path):
    path = tmp_path / "made-up.rlnasbench"
    save_bench(bench, path)
    return path


def rewritten(path, change):
    """The file with its content changed, and its checks made to fit."""
    path.write_bytes(lzma.compress(change(lzma.decompress(path.read_bytes()))))
    return path


def with_header(path, **values):
    def change(content):
        header, _, payload = content[len(MAGIC) :].partition(b"\n")
        return MAGIC + json.dumps({**json.loads(header), **values}).encode() + b"\n" + payload

    return rewritten(path, change)


def test_a_bench_reads_as_it_was_written(bench, stored):
    read = load_bench(stored)
    np.testing.assert_array_equal(read.right, bench.right)
    for name in ("name", "space", "shape", "n_items", "chance", "recipe"):
        assert getattr(read, name) == getattr(bench, name)
    for name in ("kept", "n_params"):
        assert model_to_dict(getattr(read, name)) == model_to_dict(getattr(bench, name))
    assert list(read.latencies) == ["fast", "slow"]
    for name, latency in read.latencies.items():
        np.testing.assert_array_equal(read.latency_ms(name), bench.latency_ms(name))
        assert (latency.spread, latency.note) == (bench.latencies[name].spread, "ms")
    configs = [bench.config_of(row) for row in range(27)]
    assert read.evaluator()(configs) == bench.evaluator()(configs)


def test_saving_leaves_no_other_file(stored):
    assert [path.name for path in stored.parent.iterdir()] == ["made-up.rlnasbench"]


def test_relatives_make_a_table_smaller(bench, tmp_path):
    from dataclasses import replace

    rng = np.random.default_rng(0)
    # Alike where the first layers are: what a subnet gets right hardly depends on the last ones.
    base = rng.random((3, 4000)) < 0.8
    alike = replace(bench, n_items=4000, right=np.packbits(np.repeat(base, 9, axis=0), axis=1))
    save_bench(alike, tmp_path / "alike")
    assert (tmp_path / "alike").stat().st_size < 0.2 * alike.right.size
    np.testing.assert_array_equal(load_bench(tmp_path / "alike").right, alike.right)


def test_a_bench_loads_without_torch_and_without_pickle(stored):
    program = (
        "import sys\nfrom rlnas.tabular import load_bench\n"
        "sys.modules['pickle'] = None\n"
        f"assert load_bench({str(stored)!r}).name == 'made-up'\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_damaged(stored, share):
    content = stored.read_bytes()
    stored.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        DataError, match=r"made-up.rlnasbench is damaged, or no rlnas-bench .*; fetch it again"
    ):
        load_bench(stored)


def test_a_byte_that_flipped_is_noticed_wherever_it_is(stored):
    content = stored.read_bytes()
    for position in range(0, len(content), 7):
        stored.write_bytes(content[:position] + bytes([content[position] ^ 32]) + content[position + 1 :])
        with pytest.raises(DataError, match=r"made-up.rlnasbench is damaged"):
            load_bench(stored)


def test_files_of_another_kind_are_refused(stored):
    rewritten(stored, lambda content: b"something else entirely")
    with pytest.raises(DataError, match="is no rlnas-bench of version 1: it begins with b'something else"):
        load_bench(stored)
    stored.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(DataError, match="is damaged, or no rlnas-bench"):
        load_bench(stored)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the bench .*none: No such file or directory"):
        load_bench(tmp_path / "none")


def test_a_folder_that_is_not_there_is_named(bench, tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot write the bench .*none/x: No such file"):
        save_bench(bench, tmp_path / "none" / "x")


def test_a_header_without_a_value_names_it(stored):
    def change(content):
        return content.replace(b'"chance"', b'"chants"')

    with pytest.raises(DataError, match="is damaged: it lacks 'chance'; fetch it again"):
        load_bench(rewritten(stored, change))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"n_items": 45}, "45 items of 27 subnets take 207 bytes, but there are 203"),
        ({"n_items": 0}, "0 items of 27 subnets take"),
        ({"n_items": "many"}, "invalid literal"),
        ({"options": []}, "options needs at least one LayerConfig"),
        ({"kept": {"base": 0, "parts": [[0.0, 1.0]]}}, r"a sum over \(3, 3, 3\) options has parts of"),
        ({"latencies": []}, "has no attribute 'items'"),
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_says_how(stored, values, reason):
    with pytest.raises(DataError, match=f"made-up.rlnasbench is damaged .*{reason}"):
        load_bench(with_header(stored, **values))


def test_relatives_that_do_not_come_before_are_refused(stored):
    def at_row(row, code):
        def change(content):
            start = content.index(b"\n", len(MAGIC)) + 1 + row
            return content[:start] + bytes([code]) + content[start + 1 :]

        return change

    content = stored.read_bytes()
    with pytest.raises(DataError, match="refers to a relative that does not exist"):
        load_bench(rewritten(stored, at_row(3, 6)))
    stored.write_bytes(content)
    with pytest.raises(DataError, match="refers to a relative that does not come before it"):
        load_bench(rewritten(stored, at_row(3, 1)))
    stored.write_bytes(content)
    with pytest.raises(DataError, match="refers to a relative that does not exist"):
        load_bench(rewritten(stored, at_row(0, 0)))


def test_sums_travel_as_plain_values(bench):
    values = json.loads(json.dumps(model_to_dict(bench.kept)))
    assert model_to_dict(model_from_dict(values, bench.space.nvec)) == values
    with pytest.raises(
        ValueError, match=r"a sum over \(3, 3\) options has parts of \[\(3,\), \(3,\), \(3,\)\]"
    ):
        model_from_dict(values, (3, 3))

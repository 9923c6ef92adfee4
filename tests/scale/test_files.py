from __future__ import annotations

from rlnas.scale.files import packed, unpacked


def test_a_folder_arrives_as_it_was_and_is_gone_afterwards(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.txt").write_bytes(b"one")
    (tmp_path / "b.bin").write_bytes(bytes(range(256)))
    files = packed(tmp_path)
    assert sorted(files) == ["a.txt", "b.bin"]
    with unpacked(files) as folder:
        assert packed(folder) == files
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()

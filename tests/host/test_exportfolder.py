# SPDX-License-Identifier: GPL-2.0-only
"""An export's folder appears whole, and nobody else's work is replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workbench import exportfolder
from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES: Mapping[str, bytes] = {"series": b"0001-x.patch\n", "0001-x.patch": b"x\n"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_a_new_folder_and_an_empty_one_are_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert exportfolder.write(tmp_path / name, FILES)
        assert content(tmp_path / name) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new"]


def test_what_we_wrote_is_replaced_and_the_same_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    exportfolder.write(out, FILES)
    inode = out.stat().st_ino
    assert not exportfolder.write(out, FILES)
    assert out.stat().st_ino == inode
    assert exportfolder.write(out, {"0001-y.patch": b"y\n"})
    assert content(out) == {"0001-y.patch": b"y\n"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "data"), [("0001-x.patch", b"worded anew\n"), ("mine.txt", b"mine\n")]
)
def test_what_was_changed_since_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    out = tmp_path / "out"
    exportfolder.write(out, FILES)
    (out / name).write_bytes(data)
    with pytest.raises(UsageError, match="was changed since") as caught:
        exportfolder.write(out, {"other": b""})
    assert caught.value.where == str(out / name)
    assert content(out) == {**FILES, name: data}


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine\n")
    with pytest.raises(UsageError, match="is not empty"):
        exportfolder.refuse_foreign(tmp_path)
    with pytest.raises(UsageError, match="is no directory"):
        exportfolder.refuse_foreign(tmp_path / "mine.txt")
    with pytest.raises(UsageError, match="is no directory"):
        exportfolder.refuse_foreign(tmp_path / "not" / "there")
    (tmp_path / ".kpw-export").write_text("not json")
    with pytest.raises(UsageError, match="was changed since"):
        exportfolder.refuse_foreign(tmp_path)


def test_a_removed_file_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    exportfolder.write(out, FILES)
    (out / "series").unlink()
    assert exportfolder.write(out, FILES)
    assert content(out) == FILES


def test_a_write_that_fails_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    exportfolder.write(out, FILES)
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("disk")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="disk"):
        exportfolder.write(out, {"other": b""})
    assert content(out) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]

# SPDX-License-Identifier: GPL-2.0-only
"""The guest's second disk: a tar of one size."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from workbench import payload
from workbench.errors import InfraError
from workbench.payload import Payload

if TYPE_CHECKING:
    from pathlib import Path


def names(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_the_command_and_the_files_are_in_it(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "deep" / "__pycache__").mkdir(parents=True)
    (tests / "deep" / "test_x.py").write_text("x")
    (tests / "deep" / "__pycache__" / "x.pyc").write_text("host's")
    disk = tmp_path / "disk"
    Payload("#!/bin/sh\ntrue\n", (("tests", tests), ("stdin", b"data"))).write(disk)
    members = names(disk)
    assert set(members) == {"command", "tests", "tests/deep", "tests/deep/test_x.py", "stdin"}
    assert members["command"].mode == 0o755
    assert members["tests/deep/test_x.py"].uname == "root"
    with tarfile.open(disk) as tar:
        stdin = tar.extractfile("stdin")
        assert stdin is not None
        assert stdin.read() == b"data"


def test_modules_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    built = tmp_path / "cast5_generic.ko"
    built.write_bytes(b"module")
    Payload("true", payload.modules((built,))).write(tmp_path / "disk")
    members = names(tmp_path / "disk")
    assert members["modules"].isdir()
    assert members["modules/cast5_generic.ko"].size == len(b"module")
    assert payload.modules(()) == ()


def test_a_terminal_is_asked_for_by_a_file(tmp_path: Path) -> None:
    Payload("true", terminal=True).write(tmp_path / "disk")
    assert "tty" in names(tmp_path / "disk")


def test_every_disk_has_the_same_size(tmp_path: Path) -> None:
    Payload("true").write(tmp_path / "small")
    Payload("true", (("big", bytes(1 << 20)),)).write(tmp_path / "big")
    assert (tmp_path / "small").stat().st_size == (tmp_path / "big").stat().st_size


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "_DISK_BYTES", 4096)
    with pytest.raises(InfraError, match="big"):
        Payload("true", (("big", bytes(8192)),)).write(tmp_path / "disk")


def test_only_files_and_directories_travel(tmp_path: Path) -> None:
    """A link goes as what it points to; the guest's init knows nothing else."""
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "real").write_text("x")
    (tests / "link").symlink_to("real")
    Payload("true", (("tests", tests),)).write(tmp_path / "disk")
    members = names(tmp_path / "disk")
    assert members["tests/link"].isfile()
    assert all(member.isfile() or member.isdir() for member in members.values())

# SPDX-License-Identifier: GPL-2.0-only
"""Downloads against a real server that breaks off, lies, or is not there."""

from __future__ import annotations

import errno
import hashlib
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from toy_server import ToyServer, serving

from workbench import download
from workbench.download import MissingError, UnreachableError, Wanted, fetch
from workbench.errors import InfraError
from workbench.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = hashlib.shake_256(b"a tarball").digest(1_000_000)
NAME = "linux.tar.xz"


class Told(Silent):
    """Remember what was told."""

    def __init__(self) -> None:
        """Start with nothing told."""
        self.steps: list[tuple[float | None, float | None]] = []
        self.notes: list[str] = []

    def step(
        self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
    ) -> None:
        assert NAME in what
        assert unit == "bytes"
        self.steps.append((done, total))

    def note(self, line: str) -> None:
        self.notes.append(line)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ToyServer]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_BACKOFF_SECONDS", 0.0)
    with serving() as toy:
        toy.files[f"/{NAME}"] = DATA
        yield toy


def wanted(server: ToyServer, data: bytes = DATA) -> Wanted:
    digest = hashlib.sha256(data).hexdigest()
    return Wanted(NAME, f"{server.url}/{NAME}", digest, len(data))


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if not file.name.startswith("."))


def test_a_file_comes_whole_and_is_not_asked_for_twice(server: ToyServer, tmp_path: Path) -> None:
    told = Told()
    file = fetch(wanted(server), tmp_path / "new", told)
    assert file.read_bytes() == DATA
    assert told.steps[-1] == (len(DATA), len(DATA))
    fetch(wanted(server), tmp_path / "new", Silent())
    assert len(server.asked) == 1
    assert names(file.parent) == [NAME]


def test_a_size_nobody_said_is_the_servers_word(server: ToyServer, tmp_path: Path) -> None:
    told = Told()
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:400_000])
    fetch(replace(wanted(server), size=None), tmp_path, told)
    assert {total for _, total in told.steps} == {len(DATA)}


def test_a_server_that_says_no_size_is_believed_without(server: ToyServer, tmp_path: Path) -> None:
    server.lengths = False
    told = Told()
    file = fetch(replace(wanted(server), size=None), tmp_path, told)
    assert file.read_bytes() == DATA
    assert told.steps[-1] == (len(DATA), None)


def test_what_the_server_announces_must_have_room_too(
    server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=(64 << 20) + 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InfraError, match="the disk is too full"):
        fetch(replace(wanted(server), size=None), tmp_path, Silent())
    assert names(tmp_path) == []


def test_a_broken_connection_is_taken_up_where_it_broke(server: ToyServer, tmp_path: Path) -> None:
    server.breaks = [600_000, 300_000]
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA
    assert server.asked[0][1] == ""
    assert all(resumed.startswith("bytes=") for _, resumed in server.asked[1:])


def test_a_part_of_an_earlier_run_is_continued(server: ToyServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(DATA[:400_000])
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA
    assert server.asked == [(f"/{NAME}", "bytes=400000-")]


def test_a_whole_part_needs_no_more_bytes(server: ToyServer, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(DATA)
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA


def test_a_server_without_ranges_is_asked_for_all_of_it(server: ToyServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 999)
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA


def test_a_part_of_another_file_is_given_up_for_a_fresh_start(
    server: ToyServer, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(b"x" * 400_000)
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA
    assert [resumed for _, resumed in server.asked] == ["bytes=400000-", ""]


def test_a_wrong_digest_is_refused_and_set_aside(server: ToyServer, tmp_path: Path) -> None:
    changed = DATA[:-1] + b"\0"
    server.files[f"/{NAME}"] = changed
    with pytest.raises(InfraError, match="wrong digest") as caught:
        fetch(wanted(server), tmp_path, Silent())
    refused = f"{NAME}.refused-{hashlib.sha256(changed).hexdigest()[:8]}"
    assert names(tmp_path) == [refused]
    assert refused in str(caught.value)
    assert "\n" not in str(caught.value)
    server.files[f"/{NAME}"] = DATA
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA


def test_a_damaged_file_of_before_is_set_aside_and_fetched_again(
    server: ToyServer, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(DATA[:-1])
    told = Told()
    assert fetch(wanted(server), tmp_path, told).read_bytes() == DATA
    assert "set aside" in told.notes[0]
    assert len(names(tmp_path)) == 2


def test_a_server_that_sends_too_much_is_stopped(server: ToyServer, tmp_path: Path) -> None:
    server.files[f"/{NAME}"] = DATA * 20
    with pytest.raises(InfraError, match="wrong digest"):
        fetch(wanted(server), tmp_path, Silent())
    assert next(tmp_path.glob("*.refused-*")).stat().st_size < 3 * len(DATA)


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_file_that_is_not_given_is_missing(
    server: ToyServer, tmp_path: Path, status: int
) -> None:
    server.status[f"/{NAME}"] = status
    with pytest.raises(MissingError, match=str(status)):
        fetch(wanted(server), tmp_path, Silent())
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_unreachable(server: ToyServer, tmp_path: Path) -> None:
    server.status[f"/{NAME}"] = 503
    with pytest.raises(UnreachableError, match="503"):
        fetch(wanted(server), tmp_path, Silent())


class _Nowhere(NamedTuple):
    url: str


@pytest.mark.parametrize(
    "nowhere", [_Nowhere("http://127.0.0.1:9"), _Nowhere("http://no-such-host.invalid")]
)
def test_no_network_is_one_line(
    tmp_path: Path, nowhere: _Nowhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(UnreachableError, match="cannot be reached") as caught:
        fetch(Wanted(NAME, f"{nowhere.url}/{NAME}", "0" * 64), tmp_path, Silent())
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreachableError):
        download.get(f"{nowhere.url}/x", 10)


def test_a_connection_that_only_breaks_is_given_up_with_the_part_kept(
    server: ToyServer, tmp_path: Path
) -> None:
    server.breaks = [1000] + [0] * 20
    with pytest.raises(UnreachableError):
        fetch(wanted(server), tmp_path, Silent())
    assert (tmp_path / f"{NAME}.part").read_bytes() == DATA[:1000]


def test_a_disk_without_room_is_told_before_anything_is_sent(
    server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InfraError, match="the disk is too full"):
        fetch(wanted(server), tmp_path, Silent())
    assert server.asked == []


def test_a_disk_that_fills_up_is_one_line_and_the_part_is_kept(
    server: ToyServer, tmp_path: Path
) -> None:
    class Filling(Silent):
        def step(
            self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
        ) -> None:
            if done and done > 500_000:
                raise OSError(errno.ENOSPC, what, f"{total} {unit}")

    with pytest.raises(InfraError, match="the disk is full"):
        fetch(wanted(server), tmp_path, Filling())
    assert (tmp_path / f"{NAME}.part").stat().st_size > 400_000
    assert fetch(wanted(server), tmp_path, Silent()).read_bytes() == DATA


def test_small_files_have_a_limit(server: ToyServer) -> None:
    server.files["/small"] = b"hello"
    assert download.get(f"{server.url}/small", 5) == b"hello"
    with pytest.raises(InfraError, match="more than 4 bytes"):
        download.get(f"{server.url}/small", 4)


def test_the_proxy_of_the_environment_is_used(
    server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    far = f"http://far.invalid/{NAME}"
    server.files[far] = DATA
    digest = hashlib.sha256(DATA).hexdigest()
    assert fetch(Wanted(NAME, far, digest), tmp_path, Silent()).read_bytes() == DATA

# SPDX-License-Identifier: GPL-2.0-only
"""``kpw kernels`` and ``kpw fetch`` as users type them, on kernels of one file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from toy_source import NAME, OTHER, POOL, Clone, entry, tarball, write

from workbench import cli, source
from workbench.errors import ExitCode
from workbench.gitstore import Store
from workbench.paths import Paths

if TYPE_CHECKING:
    from toy_server import ToyServer

pytest_plugins = ["places"]


@pytest.fixture(autouse=True)
def here(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the verbs work on the toy's directories."""
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: paths))


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert cli.main(["kernels", "--json", *words]) == ExitCode.GOOD
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_what_was_taken_out_of_a_repository_is_listed(
    paths: Paths, clone: Clone, capsys: pytest.CaptureFixture[str]
) -> None:
    clone.commit(2)
    own = source.obtain(paths, "main", repo=clone.path)
    pinned, mine = sorted(listed(capsys), key=lambda each: bool(each["supported"]), reverse=True)
    assert (pinned["name"], pinned["state"], pinned["size"]) == (
        "v6.12.38",
        "available",
        len(tarball()),
    )
    assert (mine["name"], mine["tag"], mine["state"]) == (own.name, "v6.12.2", "imported")
    assert (mine["source"], mine["size"]) == ("your own repository", None)
    assert mine["stored"] == Store.open(paths).bytes_of(own.commit) > 0
    assert cli.main(["kernels"]) == ExitCode.GOOD
    out = capsys.readouterr().out
    assert own.name in out
    assert "MiB in the store" in out


def test_the_size_of_an_import_is_that_of_its_own_tarball(
    server: ToyServer, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[POOL] = tarball()
    write(paths, entry(tarball()) + OTHER)
    assert cli.main(["fetch", "v6.12.38"]) == ExitCode.GOOD
    (known,) = listed(capsys)
    assert (known["state"], known["size"], known["stored"]) == ("imported", len(tarball()), None)
    write(paths, entry(b"x", tag="v6.1.1") + OTHER)
    other, unpinned = listed(capsys)
    assert (other["tag"], other["state"]) == ("v6.1.1", "available")
    assert (unpinned["tag"], unpinned["supported"], unpinned["size"]) == ("v6.12.38", False, None)
    assert unpinned["stored"] > 0


def test_a_damaged_tarball_is_128_and_set_aside(
    server: ToyServer, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[POOL] = tarball()[:-1] + b"\0"
    write(paths, entry(tarball()) + OTHER)
    assert cli.main(["fetch", "v6.12.38"]) == ExitCode.INFRA
    err = capsys.readouterr().err.splitlines()[-1]
    (aside,) = paths.downloads.glob(f"{NAME}.refused-*")
    assert "wrong digest" in err
    assert aside.name in err
    assert cli.main(["kernels"]) == ExitCode.GOOD
    assert "available" in capsys.readouterr().out


def test_a_tarball_that_cannot_be_unpacked_is_brought_anew_by_the_next_run(
    server: ToyServer, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    server.files[POOL] = b"no xz at all"
    write(paths, entry(b"no xz at all") + OTHER)
    assert cli.main(["fetch", "v6.12.38"]) == ExitCode.INFRA
    err = capsys.readouterr().err.splitlines()[-1]
    (aside,) = paths.downloads.glob(f"{NAME}.refused-*")
    assert "damaged tarball" in err
    assert aside.name in err
    server.files[POOL] = tarball()
    write(paths, entry(tarball()) + OTHER)
    assert cli.main(["fetch", "v6.12.38"]) == ExitCode.GOOD


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fetch", "--all", "v6.12.38"], "name no other"),
        (["fetch", "v6.12.38", "nonsense"], "'nonsense' is not a kernel tag"),
        (["fetch", "--repo", "/no/such/folder", "v6.12.38"], "/no/such/folder"),
    ],
)
def test_words_that_cannot_be_taken_are_2_before_anything_is_asked(
    words: list[str], said: str, server: ToyServer, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    write(paths, entry(tarball()) + OTHER)
    assert cli.main(words) == ExitCode.USAGE
    assert said in capsys.readouterr().err
    assert server.asked == []

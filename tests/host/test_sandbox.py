# SPDX-License-Identifier: GPL-2.0-only
"""The build's sandbox, tried with real commands: each does what a build must not."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workbench import process, sandbox
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterator


TMP = "/tmp"  # noqa: S108 - the sandbox has its own


class Cage:
    """A directory that may be written, one that may only be read, and a shell inside."""

    def __init__(self, root: Path) -> None:
        """Make both directories."""
        self.out = root / "out"
        self.src = root / "src"
        self.out.mkdir()
        self.src.mkdir()
        (self.src / "file").write_text("untouched\n")

    def run(self, script: str) -> process.Completed:
        argv = sandbox.argv(
            ("sh", "-c", script), cwd=self.out, writable=(self.out,), readable=(self.src,)
        )
        return process.run(argv, check=False, timeout=60)


@pytest.fixture
def cage(tmp_path: Path) -> Cage:
    return Cage(tmp_path)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


def test_the_out_directory_can_be_written_and_stays(cage: Cage) -> None:
    assert cage.run("echo made > made && cat ../src/file").stdout == "untouched\n"
    assert (cage.out / "made").read_text() == "made\n"


@pytest.mark.parametrize(
    "command",
    [
        "echo gone > ../src/file",
        "rm ../src/file",
        "touch ../src/new",
        "mv ../src ../elsewhere",
        "touch $HOME/kpw-was-here",
        "touch /etc/kpw-was-here",
        "touch /var/tmp/kpw-was-here",
        "mount -o remount,rw / && touch /etc/kpw-was-here",
    ],
)
def test_nothing_else_can_be_written_and_make_names_the_line(cage: Cage, command: str) -> None:
    (cage.out / "Makefile").write_text(f"all:\n\t@true\n\t{command}\n")
    done = cage.run("make")
    assert done.returncode != 0
    assert "make: *** [Makefile:3: all] Error" in done.stderr
    assert (cage.src / "file").read_text() == "untouched\n"
    assert [file.name for file in cage.src.iterdir()] == ["file"]


def test_tmp_is_its_own(cage: Cage, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine\n")
    done = cage.run(f"echo x > {TMP}/kpw-sandbox-test && ls {TMP} /run; cat {mine}")
    assert "kpw-sandbox-test" in done.stdout
    assert not Path(f"{TMP}/kpw-sandbox-test").exists()
    if mine.is_relative_to(TMP):
        assert "mine\n" not in done.stdout


def test_the_loopback_of_the_host_is_out_of_reach(cage: Cage, listener: int) -> None:
    connect = f"import socket; socket.create_connection(('127.0.0.1', {listener}), 3)"
    process.run(("python3", "-c", connect))
    done = cage.run(f'python3 -c "{connect}"')
    assert "ConnectionRefusedError" in done.stderr


def test_there_is_no_way_to_the_network(cage: Cage) -> None:
    done = cage.run("cat /proc/net/route; ls /sys/class/net >/dev/null; cat /proc/net/dev")
    devices = [line.split(":")[0].strip() for line in done.stdout.splitlines() if ":" in line]
    assert devices == ["lo"]
    connect = "import socket; socket.create_connection(('192.0.2.1', 80), 3)"
    assert "Network is unreachable" in cage.run(f'python3 -c "{connect}"').stderr


def test_no_other_process_is_in_sight(cage: Cage) -> None:
    done = cage.run(f"ls -d /proc/[0-9]* | wc -l; kill -0 {os.getpid()}")
    assert int(done.stdout) <= 6
    assert done.returncode != 0


# A pipe ends when the last process that holds it has died: nothing here waits for a clock.
def test_what_it_leaves_running_dies_with_it(cage: Cage) -> None:
    assert cage.run("echo up; sleep 1000 & exit 0").stdout == "up\n"


def test_killing_it_kills_all_of_it(cage: Cage) -> None:
    argv = sandbox.argv(
        ("sh", "-c", "echo up; (setsid sleep 1000) & sleep 1000"),
        cwd=cage.out,
        writable=(cage.out,),
    )
    with contextlib.ExitStack() as stack:
        with process.spawned(argv) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"up\n"
            held = stack.enter_context(os.fdopen(os.dup(child.stdout.fileno()), "rb"))
        ended, _, _ = select.select([held], [], [], 60)
        assert ended
        assert held.read() == b""


def test_a_machine_that_cannot_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = process.Completed(
        ("bwrap",), 1, "", "bwrap: Creating new namespace failed: Operation not permitted\n"
    )
    monkeypatch.setattr(process, "run", lambda *_args, **_more: refusal)
    sandbox.require.cache_clear()
    with pytest.raises(InfraError, match=r"Operation not permitted; run as root, or allow user"):
        sandbox.require()
    sandbox.require.cache_clear()

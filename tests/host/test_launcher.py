# SPDX-License-Identifier: GPL-2.0-only
"""The launcher, run as a program: what it says where it cannot set up."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workbench import process
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Iterator

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NOBODY = 65534


@pytest.fixture
def bare_machine() -> Iterator[Path]:
    """Yield a home, readable by anybody, where dpkg knows bc only and there is no other program."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        program(home, "dpkg-query", "echo installed bc\necho not-installed bison\nexit 1")
        (home / "tools").mkdir()
        for source in ("tools/kpw", "tools/packages.txt", "uv.lock"):
            shutil.copy(TOOLS.parent / source, home / source)
        yield home


def program(home: Path, name: str, script: str) -> None:
    """Put a program in the only folder of the path."""
    (home / name).write_text(f"#!/bin/sh\n{script}\n")
    (home / name).chmod(0o755)


def said(bare_machine: Path, *words: str) -> list[str]:
    """Return what the launcher says to nobody's words; it cannot get far."""
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    env = {"PATH": str(bare_machine), "HOME": str(bare_machine)}
    launcher = ["/usr/bin/python3", str(bare_machine / "tools" / "kpw"), *words]
    done = process.run([*drop, *launcher], env=env, check=False)
    assert done.returncode == 128
    return done.stderr.splitlines()


def refusal(bare_machine: Path, *words: str) -> str:
    """Return the one line the launcher says to nobody's words."""
    (line,) = said(bare_machine, *words)
    return line


def test_what_one_verb_needs_is_asked_of_nobody_else(bare_machine: Path) -> None:
    assert " chromium" in refusal(bare_machine, "check")
    assert " chromium" not in refusal(bare_machine, "run")


@pytest.mark.parametrize(
    "words", [["doctor"], ["man"], ["completion", "bash"], ["--help"], ["run", "-h"], []]
)
def test_what_only_tells_asks_for_the_environment_alone(
    bare_machine: Path, words: list[str]
) -> None:
    assert refusal(bare_machine, *words).endswith(" --no-install-recommends python3-venv'")


def test_a_command_in_the_guest_may_ask_for_its_own_help(bare_machine: Path) -> None:
    assert " bison " in refusal(bare_machine, "boot", "v6.1", "--", "ls", "--help")


def test_the_doctor_sees_other_systems_too(bare_machine: Path) -> None:
    (bare_machine / "dpkg-query").unlink()
    assert "not a Debian system" in refusal(bare_machine, "run")
    assert f"{bare_machine}/.cache" in refusal(bare_machine, "doctor"), "it went on"


def test_without_root_and_sudo_su_installs(bare_machine: Path) -> None:
    line = refusal(bare_machine, "run")
    assert re.search(r"run: su -c 'apt-get update && apt-get install .*\bbison\b.*'$", line)
    assert not re.search(r"install .*\bbc\b", line), "what is installed is not asked for"


def test_a_sudo_that_wants_a_password_is_left_to_the_user(bare_machine: Path) -> None:
    program(bare_machine, "sudo", "exit 1")
    line = refusal(bare_machine, "run")
    assert re.search(r"run: sudo apt-get update && sudo apt-get install .*\bbison\b", line)


def test_a_sudo_that_wants_none_installs(bare_machine: Path) -> None:
    log = bare_machine / "log"
    log.touch()
    log.chmod(0o666)
    program(bare_machine, "sudo", f'echo "$*" >>{log}')
    told, _ = said(bare_machine, "run")
    assert re.search(r"installing \d+ Debian packages: .*\bbison\b", told)
    free, update, install = log.read_text().splitlines()
    assert free == "-n true"
    assert re.fullmatch(r"-n apt-get .* update", update)
    assert re.fullmatch(r"-n apt-get install -y .*\bbison\b.*", install)
    assert " bc" not in install


def test_a_sudo_that_cannot_install_is_told_with_apts_own_word(bare_machine: Path) -> None:
    script = 'case "$*" in *update*) echo "E: no network" >&2; exit 100;; esac'
    program(bare_machine, "sudo", script)
    assert "apt-get update: E: no network" in said(bare_machine, "run")[-1]


def test_every_package_has_its_reason() -> None:
    lines = (TOOLS / "packages.txt").read_text().splitlines()
    entries = [line for line in lines if line and not line.startswith("#")]
    assert entries == sorted(entries)
    for line in entries:
        assert re.fullmatch(r"[a-z0-9.+-]+ +# \S.*", line), line


def test_the_lock_names_no_address_and_hashes_every_file() -> None:
    text = (Paths.default().repo / "uv.lock").read_text()
    assert set(re.findall(r"https?://([^/\"]+)", text)) == {"index.invalid"}
    files = re.findall(r"\{ url = [^}]*\}", text)
    assert files
    assert all('hash = "sha256:' in entry for entry in files)

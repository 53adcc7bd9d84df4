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
    """Yield a home, readable by anybody, where dpkg knows bc only and nobody has sudo."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        dpkg = home / "dpkg-query"
        dpkg.write_text("#!/bin/sh\necho installed bc\necho not-installed bison\nexit 1\n")
        dpkg.chmod(0o755)
        for source in ("kpw", "packages.txt"):
            shutil.copy(TOOLS / source, home)
        yield home


def refusal(bare_machine: Path, verb: str) -> str:
    """Return the one line the launcher says to nobody's verb."""
    drop: list[str] = []
    if os.geteuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    env = {"PATH": f"{bare_machine}:/usr/bin:/bin", "HOME": str(bare_machine)}
    launcher = ["/usr/bin/python3", str(bare_machine / "kpw"), verb]
    done = process.run([*drop, *launcher], env=env, check=False)
    assert done.returncode == 128
    (line,) = done.stderr.splitlines()
    return line


def test_what_one_verb_needs_is_asked_of_nobody_else(bare_machine: Path) -> None:
    assert " chromium" in refusal(bare_machine, "check")
    assert " chromium" not in refusal(bare_machine, "run")


def test_without_root_it_names_the_one_line_that_installs(bare_machine: Path) -> None:
    line = refusal(bare_machine, "run")
    assert re.search(r"run: sudo apt-get update && sudo apt-get install .*\bbison\b", line)
    assert not re.search(r"install .*\bbc\b", line), "what is installed is not asked for"


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

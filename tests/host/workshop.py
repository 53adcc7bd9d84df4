# SPDX-License-Identifier: GPL-2.0-only
"""A copy of the repository with an extension of its own, for tests of the real pipeline.

The toy extension changes one line of ``fs/proc/version.c``, so that building
it on a tree that is there costs one object and a link. Cache and store are
the ones everybody uses, so nothing is downloaded or built twice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
TAG = "v6.12.107"
SOURCE = "fs/proc/version.c"

_TOML = """# SPDX-License-Identifier: GPL-2.0-only
id = "T1"
summary = "a toy"
base = "{tag}"
"""
_MAIL = """From {zeros} Mon Sep 17 00:00:00 2001
From: Toy <toy@example.org>
Date: Mon, 1 Jan 2024 00:00:00 +0000
Subject: [PATCH] proc: a toy

Signed-off-by: Toy <toy@example.org>
---
{diff}--
2.39.0
"""

# What the toy does to the kernel, by what shall come of it.
SAYS_TOY = (
    "\t\tutsname()->version);\n",
    '\t\tutsname()->version);\n\tseq_puts(m, "kpw-toy\\n");\n',
)
BREAKS_BUILD = ("\t\tutsname()->version);\n", "\t\tutsname()->version) no_such_thing;\n")
PANICS = ("\tpde_make_permanent(pde);\n", '\tpde_make_permanent(pde);\n\tpanic("kpw toy");\n')

TEST = '''# SPDX-License-Identifier: GPL-2.0-only
"""The toy's selftest."""
from pathlib import Path

import pytest


@pytest.mark.proof(red="nothing of the toy")
def test_version_says_toy():
    assert "{word}" in Path("/proc/version").read_text(), "nothing of the toy"


@pytest.mark.control
def test_there_is_a_version():
    assert "Linux" in Path("/proc/version").read_text(), "no version"
'''
HANGING_TEST = '''# SPDX-License-Identifier: GPL-2.0-only
"""A selftest that hangs, deaf to the alarm that should end it."""
import signal
import time

import pytest


@pytest.mark.deadline(1)
@pytest.mark.control
def test_hangs():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    time.sleep(10000)
'''


@dataclass
class Workshop:
    """A repository of its own at ``root``, over the common cache."""

    root: Path
    state: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, tmp: Path) -> Workshop:
        """Copy what the pipeline reads, without any extension."""
        root = tmp / "repo"
        ignore = shutil.ignore_patterns("__pycache__", "extension")
        for name in ("tools", "kconfigs", "qemu"):
            shutil.copytree(REPO / name, root / name, ignore=ignore)
        (root / "patches").mkdir()
        shutil.copy(REPO / "patches" / "kernels.toml", root / "patches")
        guest = root / "tests" / "guest"
        guest.mkdir(parents=True)
        for file in (REPO / "tests" / "guest").iterdir():
            if file.is_file():
                shutil.copy(file, guest)
        return cls(root, tmp / "state")

    def toy(
        self, change: tuple[str, str], test: str = "", name: str = "toy", source: str = SOURCE
    ) -> None:
        """Write the toy extension: one replacement in a source, and its selftest."""
        folder = self.root / "patches" / name
        folder.mkdir(exist_ok=True)
        (folder / "extension.toml").write_text(_TOML.format(tag=TAG))
        (folder / "0001-proc-a-toy.patch").write_text(self._patch(change, source))
        # The configuration of the real series: its objects are in ccache already.
        real = sorted((REPO / "kconfigs" / "extension").glob("*.config"))
        fragment = self.root / "kconfigs" / "extension" / f"{name}.config"
        fragment.parent.mkdir(exist_ok=True)
        # A symbol may stand once in a file.
        lines = dict.fromkeys(line for each in real for line in each.read_text().splitlines())
        fragment.write_text("\n".join(lines) + "\n")
        tests = self.root / "tests" / "guest" / name
        tests.mkdir(exist_ok=True)
        (tests / "test_toy.py").write_text(test or TEST.format(word="kpw-toy"))

    def _patch(self, change: tuple[str, str], source: str) -> str:
        before = self.git("cat-file", "blob", f"{TAG}:{source}")
        assert before.count(change[0]) == 1
        scratch = self.root / "scratch"
        for side, text in (("a", before), ("b", before.replace(*change))):
            file = scratch / side / source
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        diff = subprocess.run(
            ["git", "diff", "--no-index", "--full-index", "--no-prefix", "a", "b"],
            cwd=scratch,
            check=False,
            capture_output=True,
            text=True,
        ).stdout
        shutil.rmtree(scratch)
        return _MAIL.format(zeros="0" * 40, diff=diff)

    def git(self, *words: str) -> str:
        """Ask the common store."""
        store = self.cache / "store.git"
        done = subprocess.run(
            ["git", "--git-dir", str(store), *words], check=True, capture_output=True, text=True
        )
        return done.stdout

    @property
    def cache(self) -> Path:
        """The cache the workbench uses here."""
        ask = "from workbench.paths import Paths; print(Paths.default().cache)"
        done = subprocess.run(
            [sys.executable, "-c", ask],
            check=True,
            capture_output=True,
            text=True,
            env=self.environment(),
        )
        return Path(done.stdout.strip())

    def environment(self) -> dict[str, str]:
        """Return the environment of a run in this workshop; its state is its own."""
        ours = {"PYTHONPATH": str(self.root / "tools"), "KPW_STATE": str(self.state)}
        return os.environ | ours | self.env

    def argv(self, *words: str) -> list[str]:
        """Return the command line of ``kpw`` from this repository."""
        return [sys.executable, "-P", "-m", "workbench", *words]

    def kpw(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``kpw`` to its end."""
        return subprocess.run(
            self.argv(*words),
            check=False,
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.root,
        )

    def report(self) -> dict[str, Any]:
        """Return the newest run's report."""
        newest = max((self.state / "runs").iterdir())
        data: dict[str, Any] = json.loads((newest / "report.json").read_text())
        return data

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start ``kpw`` in a session of its own."""
        return subprocess.Popen(
            self.argv(*words),
            env=self.environment(),
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def processes(self) -> list[str]:
        """Return the command lines of all live processes started from this workshop."""
        mark = f"KPW_STATE={self.state}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def left_after(self, seconds: float = 10.0) -> list[str]:
        """Return what is still alive after at most so many seconds: it should be nothing."""
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.05)
        return left


def kill(child: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Signal the whole session a child leads, as a terminal or an angry user does."""
    os.killpg(child.pid, number)

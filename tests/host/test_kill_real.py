# SPDX-License-Identifier: GPL-2.0-only
"""Ended at random moments, by kill -9 or Ctrl-C: nothing is left alive, and a rerun says the same.

The runs have a cache of their own over the common store, image and ccache:
what a kill leaves behind must not be able to hurt anybody else.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import workshop
from workshop import TAG, Workshop, kill

from workbench.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path
    from subprocess import Popen

pytestmark = pytest.mark.soak
pytest_plugins = ["listening"]

SEED = 20261123
KILLS = 10
CTRL_C = 3


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Make a workshop whose toy is green, with a cache that was used once."""
    made = Workshop.make(tmp_path_factory.mktemp("kill"))
    made.toy(workshop.SAYS_TOY)
    common, own = made.cache, made.root / "cache"
    own.mkdir()
    # A store of its own that borrows the objects: refs and locks may be hurt here.
    made.env["KPW_CACHE"] = str(own)
    clone = ["git", "clone", "--bare", "--shared", "--quiet", str(common / "store.git")]
    subprocess.run([*clone, str(own / "store.git")], check=True)
    shutil.copy(common / "store.git" / "config", own / "store.git" / "config")
    for name in ("images", "ccache"):
        (own / name).symlink_to(common / name)
    done = made.kpw("run", TAG)
    assert done.returncode == ExitCode.GOOD, done.stderr + done.stdout
    return made


def forget(shop: Workshop) -> None:
    """Make the next run do everything again but the compiling of what did not change."""
    cache = shop.root / "cache"
    for name in ("kernels", "evidence"):
        shutil.rmtree(cache / name, ignore_errors=True)


def verdict(shop: Workshop) -> dict[str, Any]:
    """Return what must be the same: every cell, test and proof, without the times."""
    (trial,) = shop.report()["trials"]
    return {
        cell["extension"]: (
            cell["state"],
            [(test["nodeid"], test["outcome"]) for test in cell["tests"]],
            [(proof["nodeid"], proof["state"], proof["message"]) for proof in cell["proofs"]],
        )
        for cell in trial["cells"]
    }


def whole_run(shop: Workshop) -> float:
    """Run to the end and return the seconds it took."""
    since = time.monotonic()
    done = shop.kpw("run", TAG)
    assert done.returncode == ExitCode.GOOD, done.stderr + done.stdout
    return time.monotonic() - since


def ended(shop: Workshop, moment: float, number: signal.Signals) -> tuple[Popen[str], float]:
    """Start a run anew and end it after ``moment`` seconds, sooner if it would be over by then.

    Returns the run and its moment. The machine may be less busy than when a whole run was timed.
    """
    while True:
        forget(shop)
        child = shop.start("run", TAG)
        time.sleep(moment)
        if child.poll() is None:
            kill(child, number)
            return child, moment
        child.communicate()
        moment /= 2


def test_kill_9_at_any_moment_and_a_rerun_says_the_same(shop: Workshop) -> None:
    forget(shop)
    seconds = whole_run(shop)
    expected = verdict(shop)
    moments = random.Random(SEED)
    for number in range(KILLS):
        # One in each tenth of a run, so that every stage gets its share.
        wanted = (number + moments.random()) * seconds / KILLS
        child, moment = ended(shop, wanted, signal.SIGKILL)
        child.communicate()
        assert shop.left_after() == [], f"alive after kill -9 at {moment:.1f} s"
        whole_run(shop)
        assert verdict(shop) == expected, f"after kill -9 at {moment:.1f} s (seed {SEED})"


def unfinished(cache: Path) -> list[str]:
    """Return what looks like the half of something: temporary names of our own making.

    Not in the build trees: make writes there, and what it left is marked.
    """
    found = []
    for folder, folders, files in os.walk(cache):
        folders[:] = [name for name in folders if name not in {"trees", "objects", "ccache"}]
        found += [
            os.path.join(folder, name)  # noqa: PTH118 - a list for a message
            for name in (*folders, *files)
            if name.endswith((".part", ".tmp")) or (name.startswith(".") and "-" in name)
        ]
    return found


@pytest.mark.usefixtures("signals_are_heard")
def test_ctrl_c_anywhere_leaves_no_process_and_nothing_half_written(shop: Workshop) -> None:
    forget(shop)
    seconds = whole_run(shop)
    expected = verdict(shop)
    moments = random.Random(SEED + 1)
    for number in range(CTRL_C):
        wanted = (number + moments.random()) * seconds / CTRL_C
        child, moment = ended(shop, max(wanted, 1.0), signal.SIGINT)
        said, _ = child.communicate(timeout=30)
        assert child.returncode == ExitCode.INTERRUPTED, said
        assert said.splitlines()[-1] == "kpw: interrupted; run the same command again to resume"
        assert shop.left_after() == [], f"alive after Ctrl-C at {moment:.1f} s"
        assert unfinished(shop.root / "cache") == []
    whole_run(shop)
    assert verdict(shop) == expected


@pytest.mark.usefixtures("signals_are_heard")
def test_sigterm_is_as_clean(shop: Workshop) -> None:
    forget(shop)
    child = shop.start("run", TAG)
    time.sleep(3)
    child.terminate()
    said, _ = child.communicate(timeout=30)
    assert child.returncode == ExitCode.TERMINATED, said
    assert shop.left_after() == []

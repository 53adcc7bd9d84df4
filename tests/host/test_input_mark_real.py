# SPDX-License-Identifier: GPL-2.0-only
"""That E6's proofs can fail: every supported kernel has what they prove, so no run shows it.

A kernel that does not look at XFRMA_SET_MARK any more is made by a patch of one
line, in a repository where nothing else is. On it each proof has to fail with
the message it states, and each control to pass.
"""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
import workshop
from workshop import TAG, Workshop

from workbench.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real

EXTENSION = "input-mark"
SOURCE = "net/xfrm/xfrm_user.c"
DEAF = ("\tif (attrs[XFRMA_SET_MARK]) {\n", "\tif (0 && attrs[XFRMA_SET_MARK]) {\n")


def test_each_proof_of_the_input_mark_fails_as_it_says_where_there_is_none(tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path)
    shop.toy(DEAF, name=EXTENSION, source=SOURCE)
    tests = shop.root / "tests" / "guest" / EXTENSION
    shutil.rmtree(tests)
    shutil.copytree(workshop.REPO / "tests" / "guest" / EXTENSION, tests)
    done = shop.kpw("test", TAG, "--only", EXTENSION)
    assert done.returncode == ExitCode.RED, done.stdout + done.stderr
    ((cell,),) = [trial["cells"] for trial in shop.report()["trials"]]
    stated = stated_reds(shop)
    expected = {name: "failed as stated" if red else "passed" for name, red in stated.items()}
    found = {}
    for test in cell["tests"]:
        name, message = test["nodeid"], test["message"]
        as_stated = test["outcome"] == "failed" and re.search(stated[name] or "$^", message)
        found[name] = "failed as stated" if as_stated else message or test["outcome"]
    assert found == expected
    assert set(expected.values()) == {"failed as stated", "passed"}


def stated_reds(shop: Workshop) -> dict[str, str]:
    """Read what the guest said of its tests: the failure each proof states, "" for a control."""
    (results,) = shop.state.glob("runs/*/*/results")
    lines = map(json.loads, results.read_text().splitlines())
    (collected,) = (line for line in lines if line.get("kpw") == "collected")
    return {test["nodeid"]: test["red"] for test in collected["tests"]}

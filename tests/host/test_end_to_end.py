# SPDX-License-Identifier: GPL-2.0-only
"""The main job as users run it: ``kpw run`` on the default tag, read from its JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import source
from workbench.extensions import load_extensions, patches_for
from workbench.model import KernelTag
from workbench.paths import Paths

pytestmark = pytest.mark.real

REPO = Path(__file__).resolve().parents[2]


def test_every_extension_is_green_on_the_default_tag_with_red_proven(tmp_path: Path) -> None:
    outputs = [f"--{kind}={tmp_path / kind}" for kind in ("json", "junit", "ktap")]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workbench", "run", *outputs],
        check=False,
        capture_output=True,
        text=True,
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": str(REPO / "tools")},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads((tmp_path / "json").read_text())
    (trial,) = report["trials"]
    assert trial["kernel"] == source.default_tag(Paths.default())
    assert (report["verdict"], report["exit_code"]) == ("good", 0)
    cells = {cell["extension"]: cell for cell in trial["cells"]}
    loaded = load_extensions(Paths.default())
    names = [extension.name for extension in loaded]
    assert {name: cell["state"] for name, cell in cells.items()} == dict.fromkeys(names, "green")
    upstream = {name for name, cell in cells.items() if cell["upstream"]}
    # What is there without a patch is upstream, and nothing else.
    tag = KernelTag.parse(trial["kernel"])
    assert upstream == {each.name for each in loaded if not patches_for(each, tag)}
    for name in names:
        states = {proof["state"] for proof in cells[name]["proofs"]}
        assert states == (set() if name in upstream else {"red for the stated reason"})
        assert "proof" in {test["kind"] for test in cells[name]["tests"]}
    assert all(guest["finished"] for guest in trial["guests"])
    collected = sum(guest["collected"] for guest in trial["guests"])
    assert collected == sum(len(cell["tests"]) for cell in cells.values())
    assert "verdict: GOOD (exit code 0)" in done.stdout
    assert (tmp_path / "ktap").read_text().startswith("KTAP version 1\n1..1\n")
    assert "<testsuites" in (tmp_path / "junit").read_text()

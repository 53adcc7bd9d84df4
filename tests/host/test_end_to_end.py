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
from workbench.paths import Paths

pytestmark = pytest.mark.real

REPO = Path(__file__).resolve().parents[2]


def test_three_extensions_are_green_on_the_default_tag_with_red_proven(tmp_path: Path) -> None:
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
    assert {name: cell["state"] for name, cell in cells.items()} == {
        "spi-timeout": "green",
        "virtual-ipv6": "green",
        "input-mark": "green",
    }
    for name in ("spi-timeout", "virtual-ipv6"):
        proofs = cells[name]["proofs"]
        assert proofs
        assert {proof["state"] for proof in proofs} == {"red for the stated reason"}
    assert cells["input-mark"]["upstream"]
    assert {test["kind"] for test in cells["input-mark"]["tests"]} >= {"proof"}
    (guest,) = trial["guests"]
    assert guest["finished"]
    assert guest["collected"] == sum(len(cell["tests"]) for cell in cells.values())
    assert "verdict: GOOD (exit code 0)" in done.stdout
    assert (tmp_path / "ktap").read_text().startswith("KTAP version 1\n1..1\n")
    assert "<testsuites" in (tmp_path / "junit").read_text()

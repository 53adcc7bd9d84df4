# SPDX-License-Identifier: GPL-2.0-only
"""What CONTRIBUTING.md promises: each thing that is added, in under ten lines."""

from __future__ import annotations

from pathlib import Path

import pytest

TEXT = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("what", ["an extension", "a kernel", "a selftest"])
def test_adding_something_takes_under_ten_lines(what: str) -> None:
    section = TEXT.partition(f"\n## Add {what}\n")[2].partition("\n## ")[0]
    assert 0 < len(section.strip("\n").splitlines()) < 10

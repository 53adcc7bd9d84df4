# SPDX-License-Identifier: GPL-2.0-only
"""The gates on a real kernel: minutes, so marked ``real``."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

import pytest
import workshop
from workshop import TAG, Workshop

from workbench import configure, kobjects, process, recipe, touched
from workbench.errors import ExitCode
from workbench.paths import Paths

if TYPE_CHECKING:
    from pathlib import Path

# It is not declared anywhere: sparse says so, and so does W=1 of the function.
_HEAD = "static int version_proc_show("
_TOY = "int kpw_toy;\n\nint kpw_toy_function(void)\n{\n\treturn kpw_toy;\n}\n\n"
SAYS_TOO_MUCH = (_HEAD, _TOY + _HEAD)


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop.make(tmp_path)


def gates(shop: Workshop, code: ExitCode) -> dict[str, Any]:
    done = shop.kpw("lint", TAG, "--json")
    assert done.returncode == code, done.stderr + done.stdout
    (kernel,) = json.loads(done.stdout)["kernels"]
    (patch,) = kernel["patches"]
    return {each["gate"]: each for each in patch["gates"]} | {"cached": kernel["cached"]}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--only", "spi-timeout,virtual-ipv6"), marks=pytest.mark.real),
        # A quarter of what 'kpw check' may take in all.
        pytest.param((), marks=pytest.mark.soak),
    ],
    ids=["two-extensions", "whole"],
)
def test_the_series_is_clean_and_a_second_run_does_nothing_twice(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    shop = Workshop(workshop.REPO, tmp_path / "state")
    done = shop.kpw("lint", TAG, *words)
    assert done.returncode == ExitCode.GOOD, done.stdout + done.stderr
    assert "builds | ok" in done.stdout
    again = shop.kpw("lint", TAG, *words, "--json")
    assert again.returncode == ExitCode.GOOD
    (kernel,) = json.loads(again.stdout)["kernels"]
    # What a series restores is upstream's, and what the kernel has is no commit: no gate
    # looks at those.
    looked_at = [
        patch
        for patch in kernel["patches"]
        if not patch["patch"].startswith("restore ")
        and any(gate["state"] != "-" for gate in patch["gates"])
    ]
    assert kernel["cached"] == sum(len(patch["gates"]) for patch in looked_at)


@pytest.mark.real
def test_the_objects_a_configuration_builds_are_those_that_a_build_put_together(
    shop: Workshop,
) -> None:
    # A kernel of the cache says nothing about what the directories hold by now.
    new = secrets.token_hex()
    shop.toy((workshop.SAYS_TOY[0], workshop.SAYS_TOY[1].replace("kpw-toy", new)))
    done = shop.kpw("build", TAG)
    assert done.returncode == ExitCode.GOOD, done.stdout + done.stderr
    paths = Paths.default()
    room = paths.trees / TAG
    out = room / "out-x86_64-plain"
    how = recipe.load(paths, "x86_64")
    place = configure.Workplace(paths, room / "src", out, shop.root / "log", "", how)
    sources = (room / "src").glob("net/**/*.c")
    there = {touched.object_of(str(each.relative_to(room / "src"))) for each in sources}
    built = process.run(("ar", "t", "net/built-in.a"), cwd=out).stdout.split()
    assert kobjects.ConfiguredObjects(place).among(there) == tuple(sorted(built))


@pytest.mark.real
def test_what_the_real_tools_find_is_told_with_its_place(shop: Workshop) -> None:
    shop.toy(SAYS_TOO_MUCH)
    found = gates(shop, ExitCode.RED)
    texts = {
        gate: [f"{each['path']}:{each['line']}: {each['text']}" for each in found[gate]["findings"]]
        for gate in ("checkpatch", "W=1", "sparse")
    }
    assert any("COMMIT_MESSAGE" in text for text in texts["checkpatch"])
    (text,) = texts["W=1"]
    assert text.startswith(f"{workshop.SOURCE}:")
    assert "no previous prototype for 'kpw_toy_function'" in text
    assert any("symbol 'kpw_toy' was not declared" in text for text in texts["sparse"])
    assert found["builds"]["state"] == found["no-ipv6"]["state"] == "ok"


@pytest.mark.real
def test_a_patch_that_does_not_build_is_told_by_its_first_error(shop: Workshop) -> None:
    shop.toy(workshop.BREAKS_BUILD)
    found = gates(shop, ExitCode.BUILD)
    assert found["builds"]["findings"][0]["path"] == workshop.SOURCE
    assert "no_such_thing" in found["builds"]["findings"][0]["text"]
    assert found["no-netfilter"]["state"] == "broken"

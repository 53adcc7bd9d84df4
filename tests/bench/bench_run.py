# SPDX-License-Identifier: GPL-2.0-only
"""How long a verdict takes: ``python tests/bench/bench_run.py [ROUNDS]``.

Two questions, each beside what it is measured against in the same round:

- a second ``kpw run``, nothing changed, against boot and selftests alone
  (the same kernel, image and payload, without the workbench around it);
- one patch edited in a .c file, until the verdict on its extension.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[2] / "tools"), str(HERE.parents[1] / "host")]

from workshop import TAG, Workshop  # noqa: E402 - the path is set above

RATIO_TO_REACH = 1.5
EDIT_TO_REACH = 30.0
EXTENSION = "spi-timeout"

# Run from the workshop's own tools: the kernel the first run left in the cache.
_ALONE = """
import sys, time
from pathlib import Path
from workbench import build, extensions, image, rebase, selftest, source
from workbench.build import BuildRequest
from workbench.gitstore import Store
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.suite import Suite
paths, quiet = Paths.default(), Silent()
store, kernel = Store.open(paths), source.obtain(paths, sys.argv[1])
chosen = extensions.load_extensions(paths)
names = tuple(each.name for each in chosen)
tree = rebase.rebase(paths, store, kernel, chosen).tree
built = build.build(paths, store, BuildRequest(kernel, tree, names), quiet)
lab = selftest.Lab(paths, image.ensure_image(paths, quiet), "x86_64", lambda _: None)
since = time.monotonic()
reports = selftest.run_selftests(
    lab, built, selftest.Selection(Suite.read(paths, names), names), Path(sys.argv[2])
)
print(time.monotonic() - since if all(each.finished for each in reports) else "failed")
"""


def whole_repository(tmp: Path) -> Workshop:
    """Return a copy of the repository with its real extensions."""
    shop = Workshop.make(tmp)
    repo = HERE.parents[2]
    for name in ("patches", "kconfigs", "tests/guest"):
        subprocess.run(
            ["cp", "-r", f"{repo / name}/.", str(shop.root / name)],
            check=True,
        )
    return shop


def timed_run(shop: Workshop, *words: str) -> float:
    """Return the seconds a green ``kpw run`` takes from its start to its exit."""
    since = time.monotonic()
    done = shop.kpw("run", TAG, *words)
    seconds = time.monotonic() - since
    if done.returncode:
        sys.exit(f"not green:\n{done.stderr}{done.stdout}")
    return seconds


def alone(shop: Workshop) -> float:
    """Return the seconds of boot and selftests without the workbench around them."""
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, TAG, str(shop.state / "alone")],
        check=True,
        capture_output=True,
        text=True,
        env=shop.environment(),
    )
    return float(done.stdout)


def edit_patch(shop: Workshop, number: int) -> None:
    """Change one added line of C in the extension's patches."""
    for path in sorted((shop.root / "patches" / EXTENSION).rglob("*.patch")):
        text = re.sub(r" /\* edit \d+ \*/", "", path.read_text())
        in_c = text.index("+++ b/net/")
        edited = re.sub(
            r"^(\+\t.*;)$", rf"\1 /* edit {number} */", text[in_c:], count=1, flags=re.MULTILINE
        )
        if edited == text[in_c:]:
            sys.exit(f"no added statement in {path}")
        path.write_text(text[:in_c] + edited)


def main() -> int:
    """Measure, print, and return 1 when a goal was missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory(prefix="kpw-bench-") as name:
        shop = whole_repository(Path(name))
        sys.stdout.write("warming up: a first run of everything, and of one extension\n")
        timed_run(shop)
        timed_run(shop, "--only", EXTENSION)
        second, bare, edits = [], [], []
        for number in range(rounds):
            second.append(timed_run(shop))
            bare.append(alone(shop))
            edit_patch(shop, int(time.time()) + number)
            edits.append(timed_run(shop, "--only", EXTENSION))
            sys.stdout.write(
                f"round {number + 1}: second run {second[-1]:.1f} s, boot and selftests alone"
                f" {bare[-1]:.1f} s, edit to verdict {edits[-1]:.1f} s\n"
            )
            sys.stdout.flush()
    ratio = statistics.median(second) / statistics.median(bare)
    edit = statistics.median(edits)
    sys.stdout.write(
        f"second run: {ratio:.2f} x boot and selftests alone (to reach: {RATIO_TO_REACH})\n"
        f"edit one patch to its extension's verdict: {edit:.1f} s (to reach: {EDIT_TO_REACH:.0f})\n"
    )
    return int(ratio > RATIO_TO_REACH or edit > EDIT_TO_REACH)


if __name__ == "__main__":
    sys.exit(main())

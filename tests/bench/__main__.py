# SPDX-License-Identifier: GPL-2.0-only
"""Every benchmark, one after the other: ``kpw check --stage bench``, or ``python tests/bench``.

They measure time, so nothing else should run beside them. The exit code says
whether all reached their goals; each one's own docstring says which it has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run all, and name those that missed a goal or did not come to their end."""
    env = os.environ | {"PYTHONPATH": str(HERE.parents[1] / "tools")}
    missed = []
    for program in sorted(HERE.glob("bench_*.py")):
        sys.stdout.write(f"-- {program.name}\n")
        sys.stdout.flush()
        if subprocess.run([sys.executable, "-P", program], env=env, check=False).returncode:
            missed.append(program.name)
    for name in missed:
        sys.stdout.write(f"MISSED: {name}\n")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())

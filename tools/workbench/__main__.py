# SPDX-License-Identifier: GPL-2.0-only
"""``python -m workbench``: the only place that exits."""

from __future__ import annotations

import sys

from workbench.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: GPL-2.0-only
"""``python -m workbench``: the only place that exits."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from workbench.cli import main
    except KeyboardInterrupt:
        # Ctrl-C while Python still loads us: nothing was begun.
        sys.exit(130)
    sys.exit(main(sys.argv[1:]))

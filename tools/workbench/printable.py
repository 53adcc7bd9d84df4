# SPDX-License-Identifier: GPL-2.0-only
"""Text of a guest, a patch or a file, made so that it cannot steer the terminal it is shown on."""

from __future__ import annotations


def safe(text: str) -> str:
    """Return one line's text with every sign that is not for the eye replaced; tabs are spaces."""
    shown = text.expandtabs(8)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)

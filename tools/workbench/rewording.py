# SPDX-License-Identifier: GPL-2.0-only
"""A letter that somebody has worded, carried on into the next version's.

What he changed in the subject, the addresses and the text is merged into the
new letter. Where both changed the same lines the new letter's stand: what it
says of tests has to be true of the new version.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import coverletter
from workbench.mergefile import Versions, merge_file

if TYPE_CHECKING:
    from workbench.gitstore import Store


@dataclass(frozen=True)
class Reworded:
    """The new letter's mail; ``whole`` tells that all of the wording is in it."""

    mail: bytes
    whole: bool


def carried(store: Store, made: bytes, worded: bytes, new: bytes) -> Reworded:
    """Merge what was changed in a letter, from ``made`` to ``worded``, into a new one."""
    letters = [coverletter.parsed(each) for each in (new, made, worded)]
    versions = Versions(*(each.text().encode() for each in letters))
    with tempfile.TemporaryDirectory(prefix="kpw-letter-") as name:
        merged = merge_file(store, Path(name), versions)
        whole = merged is not None and merged[0]
        if not whole:
            merged = merge_file(store, Path(name), versions, "--ours")
    if merged is None:
        return Reworded(new, whole=False)
    return Reworded(letters[0].with_text(merged[1].decode()).mail(), whole)

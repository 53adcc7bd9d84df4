# SPDX-License-Identifier: GPL-2.0-only
"""Signed text: only what gpgv vouches for is ever read."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from workbench import process
from workbench.errors import InfraError


def verified(signed: bytes, keyring: Path, what: str, refused: Path) -> str:
    """Return the text inside a clear-signed file, as gpgv gives it out.

    InfraError when no key of the keyring signed it, or it was changed; the
    file is then kept in the directory ``refused`` for a look.
    """
    if not keyring.is_file():
        raise InfraError(
            "is not there, so nothing can be checked with it",
            where=str(keyring),
            next_step="install debian-archive-keyring, or name a keyring that is there",
        )
    with tempfile.TemporaryDirectory(prefix="kpw-gpgv-") as scratch:
        file, text = Path(scratch, "signed"), Path(scratch, "text")
        file.write_bytes(signed)
        argv: list[str | Path] = ["gpgv", "--homedir", scratch, "--keyring", keyring.absolute()]
        argv += ["--status-fd", "1", "--output", text, file]
        done = process.run(argv, check=False)
        # Not the exit code: it is 2 as soon as one of several signatures is by a
        # key that this Debian does not know yet, however good the others are.
        words = {line.split()[1] for line in done.stdout.splitlines() if line.count(" ")}
        if {"GOODSIG", "VALIDSIG"} <= words and "BADSIG" not in words and text.is_file():
            return text.read_text(encoding="utf-8", errors="replace")
    refused.mkdir(parents=True, exist_ok=True)
    aside = refused / f"{what.replace('/', '_')}.refused-{hashlib.sha256(signed).hexdigest()[:8]}"
    aside.write_bytes(signed)
    raise InfraError(
        f"bad signature ({_reason(words)})",
        where=what,
        next_step=f"refused and set aside as {aside}",
    )


def _reason(words: set[str]) -> str:
    if "BADSIG" in words:
        return "the text was changed"
    if "EXPKEYSIG" in words:
        return "the key has expired"
    if words & {"NO_PUBKEY", "ERRSIG"}:
        return "by no key of the keyring"
    return "it is not signed"

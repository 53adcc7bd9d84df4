# SPDX-License-Identifier: GPL-2.0-only
"""E3 in SELinux's table of XFRM messages: it knows GETALG and NEWALG.

SELinux looks at every message before XFRM does. One that its table does not
have is logged, and with a policy that does not allow unknown ones refused:
then nobody could ask, whatever XFRM can answer. The flavour has no policy, so
that the log is all there is to see.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING

import pytest

import xfrm_messages as xm
from kernel_log import kernel_log
from netlink_frames import NLM_F_DUMP, encode
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace

pytestmark = pytest.mark.flavour("selinux")

#: A message that no kernel has, the first beyond ours.
NOBODYS = 0x3A
#: The kernel logs ten such lines in so many seconds, and drops what is more.
RATE_LIMIT_SECONDS = 5.0
SAID = "SELinux: unrecognized netlink message: protocol=6 nlmsg_type="
LOGGED = re.compile(rf"{SAID}(\d+) .*")


@pytest.fixture
def xfrm(netns: Namespace) -> Iterator[XfrmSocket]:
    """Open an XFRM socket."""
    with netns.inside(), contextlib.closing(XfrmSocket()) as opened:
        yield opened


def unrecognized(xfrm: XfrmSocket, number: int) -> list[str]:
    """Send a message between two that nobody has; return the lines SELinux logs of it.

    Both of those must be logged, or the rate limit may have swallowed the one
    between them: then all is done again when it is over.
    """
    lines: list[str] = []
    for patience in (RATE_LIMIT_SECONDS, RATE_LIMIT_SECONDS, 0):
        with kernel_log() as said:
            for each in (NOBODYS, number, NOBODYS):
                os.write(xfrm.fileno(), encode(xm.DumpMessage(), each, NLM_F_DUMP, each))
            found = [*LOGGED.finditer(said())]
        lines = [match[0] for match in found]
        types = [int(match[1]) for match in found]
        if len(types) > 1 and types[0] == types[-1] == NOBODYS:
            return lines[1:-1]
        time.sleep(patience)
    pytest.fail(f"SELinux logs {lines} of message {NOBODYS:#x}, which nobody has, sent twice")


@pytest.mark.control
def test_selinux_logs_what_it_does_not_know(xfrm: XfrmSocket) -> None:
    lines = unrecognized(xfrm, NOBODYS + 1)
    types = [match[1] for match in map(LOGGED.fullmatch, lines) if match]
    assert types == [str(NOBODYS + 1)], f"SELinux logs {lines} of message {NOBODYS + 1:#x}"


@pytest.mark.control
def test_selinux_knows_the_messages_that_every_kernel_has(xfrm: XfrmSocket) -> None:
    lines = unrecognized(xfrm, xm.MSG_GETPOLICY)
    assert not lines, f"SELinux does not know GETPOLICY: it logs {lines[0]!r}"


@pytest.mark.proof(red=rf"does not know GETALG: it logs '{SAID}56 ")
def test_selinux_knows_the_question(xfrm: XfrmSocket) -> None:
    lines = unrecognized(xfrm, xm.MSG_GETALG)
    assert not lines, f"SELinux does not know GETALG: it logs {lines[0]!r}"


@pytest.mark.proof(red=rf"does not know NEWALG: it logs '{SAID}57 ")
def test_selinux_knows_the_answer(xfrm: XfrmSocket) -> None:
    lines = unrecognized(xfrm, xm.MSG_NEWALG)
    assert not lines, f"SELinux does not know NEWALG: it logs {lines[0]!r}"

# SPDX-License-Identifier: GPL-2.0-only
"""E3 where an algorithm is in a module: GETALG tells what can be had when it is asked.

Upstream's xfrm_algo_desc.available is set once an algorithm was found, and
never reset: after the module went it says what is not so, and before anybody
asked for the algorithm it says nothing. The patch neither reads nor sets it.
It promises that a row is there if an SA could be installed with it at that
moment, as the crypto API answers what ESP would ask for when the dump starts.
Asking loads modules as NEWSA would. It pins none of them: the rows are copies,
and the instances made to find out are freed before the first row goes out.

So each answer here is held against NEWSA at the same moment.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from functools import partial
from typing import TYPE_CHECKING

import pytest

import kernel_modules
import xfrm_attributes as xa
import xfrm_messages as xm
import xfrm_structures as xs
from kernel_modules import Modprobe, modprobe
from namespaces import SetUpError, wait_until
from netlink_frames import NLM_F_DUMP, NetlinkRefusedError, encode, frames_of
from xfrm_netlink import XfrmSocket, algorithm_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from namespaces import Namespace

pytestmark = pytest.mark.flavour("modules")

UNKNOWN = r"GETALG refused: Invalid argument \(errno 22\)$"
NAME = "cbc(cast5)"
ALIAS = "crypto-cast5"
#: In the order they are loaded; the second needs the first.
MODULES = ("cast_common", "cast5_generic")
SA = xs.Sa("10.8.0.2", "10.8.0.1", spi=0x1000, attributes=(xa.encryption(NAME, bytes(range(16))),))


@pytest.fixture
def xfrm(netns: Namespace) -> Iterator[XfrmSocket]:
    """Open an XFRM socket on a kernel without the modules; they are gone afterwards, too."""
    there = kernel_modules.loaded() & set(MODULES)
    if there:
        raise SetUpError(f"loaded before the test: {sorted(there)}")
    with modprobe(""), netns.inside(), contextlib.closing(XfrmSocket()) as opened:
        yield opened
        opened.flush()
        remove()


def insert() -> None:
    """Load them."""
    for name in MODULES:
        kernel_modules.load(name)


def remove() -> None:
    """Unload them, once what used them is freed: a deleted SA is a moment later."""
    for name in reversed(MODULES):
        if not wait_until(partial(kernel_modules.try_to_unload, name), seconds=10):
            raise SetUpError(f"{name} is still in use after 10 s: something leaked")


def is_reported(xfrm: XfrmSocket) -> bool:
    return any(each.name == NAME for each in xfrm.algorithms())


def installs(xfrm: XfrmSocket) -> bool:
    """Tell whether NEWSA takes the algorithm; the SA is deleted again."""
    try:
        xfrm.add(SA)
    except NetlinkRefusedError as refusal:
        if refusal.errno not in {errno.ENOENT, errno.ENOSYS}:
            raise
        return False
    xfrm.delete(SA)
    return True


@pytest.mark.proof(red=UNKNOWN)
def test_it_is_reported_while_its_module_is_loaded(xfrm: XfrmSocket) -> None:
    seen = {"before": (is_reported(xfrm), installs(xfrm))}
    insert()
    seen["loaded"] = (is_reported(xfrm), installs(xfrm))
    remove()
    # NEWSA found it once, so that xfrm_algo_desc.available says it is there.
    seen["removed"] = (is_reported(xfrm), installs(xfrm))
    insert()
    seen["loaded again"] = (is_reported(xfrm), installs(xfrm))
    wrong = {when: answer for when, answer in seen.items() if answer[0] != answer[1]}
    assert not wrong, f"whether {NAME} is reported, and whether it installs: {wrong}"
    reported = [when for when, answer in seen.items() if answer[0]]
    assert reported == ["loaded", "loaded again"], f"{NAME} is reported when {reported}"


@pytest.mark.proof(red=UNKNOWN)
def test_only_its_own_row_comes_and_goes(xfrm: XfrmSocket) -> None:
    before = xfrm.algorithms()
    insert()
    during = xfrm.algorithms()
    remove()
    after = xfrm.algorithms()
    assert after == before, f"{len(after)} rows after the module went, {len(before)} before it came"
    others = [each for each in during if each.name != NAME]
    assert others == before, f"{len(others)} other rows while it is loaded, {len(before)} before"
    (row,) = [each for each in during if each.name == NAME]
    seen = (row.attribute, row.flags, row.key_min, row.key_max, row.iv)
    wanted = ("XFRMA_ALG_CRYPT", xs.Algorithm.ESP, 40, 128, 64)
    assert seen == wanted, f"{NAME}: attribute, flags, keys and IV are {seen}, not {wanted}"


@pytest.mark.proof(red=UNKNOWN)
def test_asking_lets_the_kernel_find_the_module(xfrm: XfrmSocket, tmp_path: Path) -> None:
    program = Modprobe(tmp_path, {ALIAS: MODULES})
    # All that is built in is instantiated then, and not asked of modprobe, one program each.
    assert not is_reported(xfrm), f"{NAME} is reported without its module"
    with modprobe(program.path):
        first = is_reported(xfrm)
        there = set(MODULES) <= kernel_modules.loaded()
        asked = program.asked()
        assert first, f"{NAME} is not reported; modprobe was asked for {asked}"
        assert there, f"{NAME} is reported, loaded are {sorted(kernel_modules.loaded())}"
        assert ALIAS in asked, f"modprobe was not asked for {ALIAS}, but for {asked}"
        assert installs(xfrm), f"{NAME} is reported and does not install"
        remove()
        assert is_reported(xfrm), f"{NAME} is not reported after its module went and may come back"
        assert set(MODULES) <= kernel_modules.loaded(), "the second question did not load it again"
    remove()
    assert not is_reported(xfrm), f"{NAME} is reported though nothing finds its module any more"
    assert not installs(xfrm), f"{NAME} is not reported and installs"


@pytest.mark.control
def test_newsa_lets_the_kernel_find_the_module(xfrm: XfrmSocket, tmp_path: Path) -> None:
    program = Modprobe(tmp_path, {ALIAS: MODULES})
    assert not installs(xfrm), f"{NAME} installs without its module"
    with modprobe(program.path):
        assert installs(xfrm), f"{NAME} does not install; modprobe was asked for {program.asked()}"
    assert set(MODULES) <= kernel_modules.loaded(), f"loaded are {sorted(kernel_modules.loaded())}"


@pytest.mark.control
def test_an_sa_pins_its_module(xfrm: XfrmSocket) -> None:
    insert()
    xfrm.add(SA)
    with pytest.raises(OSError, match=MODULES[1]) as refusal:
        kernel_modules.unload(MODULES[1])
    seen = errno.errorcode[refusal.value.errno or 0]
    assert seen in {"EAGAIN", "EBUSY"}, f"unloading what an SA uses is refused with {seen}"
    xfrm.delete(SA)
    remove()
    assert not installs(xfrm), f"{NAME} installs after its module went"


@pytest.mark.proof(red=UNKNOWN)
def test_what_an_sa_uses_is_reported(xfrm: XfrmSocket) -> None:
    insert()
    xfrm.add(SA)
    assert is_reported(xfrm), f"{NAME} is not reported while an SA uses it"
    with pytest.raises(OSError, match=MODULES[1]):
        kernel_modules.unload(MODULES[1])
    assert is_reported(xfrm), f"{NAME} is not reported after its module could not be unloaded"
    xfrm.delete(SA)
    remove()
    assert not is_reported(xfrm), f"{NAME} is reported after its last SA and its module went"


@pytest.mark.proof(red=UNKNOWN)
def test_a_dump_under_way_pins_nothing_and_stays_of_one_moment(
    netns: Namespace, xfrm: XfrmSocket
) -> None:
    insert()
    expected = [each.name for each in xfrm.algorithms()]
    assert NAME in expected, f"{NAME} is not reported"
    with netns.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6) as slow:
        # The kernel goes on with the dump only as far as there is room.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.send(encode(xm.DumpMessage(), xm.MSG_GETALG, NLM_F_DUMP, 1))
        rows = [frame for kind, _, frame in frames_of(slow.recv(4096)) if kind == xm.MSG_NEWALG]
        early = len(rows)
        remove()
        while True:
            frames = frames_of(slow.recv(4096))
            rows += [frame for kind, _, frame in frames if kind == xm.MSG_NEWALG]
            if any(kind != xm.MSG_NEWALG for kind, _, _ in frames):
                break
    names = [algorithm_of(frame).name for frame in rows]
    assert early < len(names), f"all {early} rows came before the module went"
    assert names == expected, f"{len(names)} rows of a dump begun before, {len(expected)} expected"
    assert not is_reported(xfrm), f"{NAME} is reported after its module went"

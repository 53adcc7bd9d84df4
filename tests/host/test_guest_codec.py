# SPDX-License-Identifier: GPL-2.0-only
"""The guest's XFRM codec, held against linux/xfrm.h and against this machine's kernel."""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rtnl_address
import xfrm_attributes as xa
import xfrm_messages as xm
import xfrm_structures as xs
from callers import without_net_admin
from netlink_frames import NetlinkRefusedError, encode
from workbench import process
from xfrm_netlink import ESP_SPIS, XfrmSocket, spi_request_of_32_bits

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
EPERM, ENOENT, EINVAL, ENOSYS, EPROTONOSUPPORT = 1, 2, 22, 38, 93

LAYOUT = """
#include <linux/xfrm.h>
#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == bytes, #type)
#define AT(type, field, bytes) \\
    _Static_assert(__builtin_offsetof(struct type, field) == bytes, #type "." #field)
SIZE(xfrm_selector, {selector});
AT(xfrm_selector, family, 40);
SIZE(xfrm_lifetime_cfg, {lifetime});
AT(xfrm_lifetime_cfg, hard_add_expires_seconds, 40);
SIZE(xfrm_user_tmpl, {template});
AT(xfrm_user_tmpl, aalgos, 52);
SIZE(xfrm_usersa_info, {sa});
AT(xfrm_usersa_info, saddr, 80);
AT(xfrm_usersa_info, lft, 96);
AT(xfrm_usersa_info, seq, 204);
AT(xfrm_usersa_info, flags, 216);
SIZE(xfrm_userpolicy_info, {policy});
AT(xfrm_userpolicy_info, dir, 160);
SIZE(xfrm_userspi_info, {spi});
AT(xfrm_userspi_info, min, {lowest});
SIZE(xfrm_usersa_id, {sa_id});
SIZE(xfrm_user_expire, {expire});
AT(xfrm_user_expire, hard, {sa});
SIZE(xfrm_user_acquire, {acquire});
AT(xfrm_user_acquire, seq, {sequence});
int XFRMA[] = {{ [XFRMA_SET_MARK] = 1, [XFRMA_ALG_AEAD] = 1 }};
_Static_assert(XFRMA_ALG_AEAD == 18 && XFRMA_SET_MARK == 29 && XFRMA_SET_MARK_MASK == 30, "XFRMA");
_Static_assert(XFRM_MSG_ALLOCSPI == 0x16 && XFRM_MSG_EXPIRE == 0x18, "XFRM_MSG");
_Static_assert(XFRM_MSG_UPDSA == 0x1a && XFRM_MSG_FLUSHSA == 0x1c, "XFRM_MSG");
"""


def payload_of(message: object) -> int:
    """Return how many bytes of a message follow the netlink header."""
    return len(encode(message, 0x10, 0, 1)) - 16


def compile_layout(folder: Path, flag: str, **sizes: int) -> None:
    source = folder / "layout.c"
    source.write_text(LAYOUT.format(**sizes), encoding="ascii")
    # -m32 looks for the kernel's headers where a 64-bit machine has none.
    include = "-I/usr/include/x86_64-linux-gnu"
    process.run(["gcc", flag, include, "-fsyntax-only", source])


def filled(kind: type, **values: object) -> object:
    message = kind()
    message.update(**values)
    return message


def test_the_layout_is_that_of_the_kernels_header(tmp_path: Path) -> None:
    sa = xs.Sa("10.0.0.2", "10.0.0.1")
    template = xs.Template("10.0.0.2", "10.0.0.1")
    selector = xs.Selector.everything(xs.AF_INET)
    ident = filled(xm.SaIdMessage, address=bytes(16), spi=bytes(4))
    compile_layout(
        tmp_path,
        "-m64",
        selector=len(selector.pack()),
        lifetime=len(xs.Lifetime().pack()),
        template=len(template.pack()),
        sa=len(sa.pack()),
        policy=len(xs.Policy(selector, xs.DIR_OUT, template).pack()),
        spi=payload_of(filled(xm.SpiMessage, info=sa.pack())),
        lowest=len(sa.pack()),
        sa_id=payload_of(ident),
        expire=payload_of(filled(xm.ExpireMessage, info=sa.pack())),
        acquire=payload_of(
            filled(
                xm.AcquireMessage,
                destination=bytes(16),
                spi=bytes(4),
                source=bytes(16),
                selector=bytes(56),
                policy=bytes(168),
                algorithms=bytes(12),
            )
        ),
        sequence=276,
    )


def test_a_32_bit_request_has_the_layout_of_a_32_bit_program(tmp_path: Path) -> None:
    sa = xs.Sa("10.0.0.2", "10.0.0.1")
    request = spi_request_of_32_bits(sa, (0x11223344, 0x55667788), sequence=9)
    lowest = request.index(0x11223344.to_bytes(4, "little")) - 16
    compile_layout(
        tmp_path, "-m32", selector=56, lifetime=64, template=64, sa=lowest, policy=164,
        spi=len(request) - 16, lowest=lowest, sa_id=24, expire=224, acquire=276, sequence=272,
    )  # fmt: skip
    assert int.from_bytes(request[:4], "little") == len(request)


ADDRESSES = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
NUMBERS = st.integers(0, xs.INFINITE)


@given(
    ends=ADDRESSES,
    spi=st.integers(0, 0xFFFFFFFF),
    proto=st.sampled_from([xs.PROTO_ESP, xs.PROTO_COMP]),
    small=st.tuples(*[st.integers(0, 255)] * 3),
    words=st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 2),
    lifetime=st.builds(xs.Lifetime, *[NUMBERS] * 8),
)
def test_an_sa_survives_packing(
    ends: tuple[object, object],
    spi: int,
    proto: int,
    small: tuple[int, int, int],
    words: tuple[int, int],
    lifetime: xs.Lifetime,
) -> None:
    sa = xs.Sa(
        str(ends[0]), str(ends[1]), spi=spi, proto=proto, mode=small[0], replay_window=small[1],
        flags=small[2], reqid=words[0], sequence=words[1], lifetime=lifetime,
    )  # fmt: skip
    sa = replace(sa, selector=xs.Selector.everything(sa.family))
    assert xs.Sa.unpack(sa.pack(), {}) == sa


@given(port=st.integers(0, 65535), proto=st.integers(0, 255), length=st.integers(0, 32))
def test_a_selector_survives_packing(port: int, proto: int, length: int) -> None:
    selector = xs.Selector(f"0.0.0.0/{length}", "10.0.0.1/32", proto, destination_port=port)
    assert xs.Selector.unpack(selector.pack(), xs.AF_INET) == selector


def in_fresh_netns(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a child with a network namespace of its own; raise what it raised.

    Without root it is a user namespace's, where CAP_NET_ADMIN is had.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        outcome: tuple[bool, object]
        try:
            flags = CLONE_NEWNET | (0 if os.geteuid() == 0 else CLONE_NEWUSER)
            if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
                raise OSError(ctypes.get_errno(), "unshare")  # noqa: TRY301
            outcome = (True, work())
        except BaseException as error:  # noqa: BLE001
            outcome = (False, error)
        try:
            answer = pickle.dumps(outcome)
        except Exception:  # noqa: BLE001
            answer = pickle.dumps((False, RuntimeError(repr(outcome[1]))))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    good, value = pickle.loads(answer)  # noqa: S301
    if not good:
        raise value
    return value  # type: ignore[no-any-return]


@pytest.fixture(autouse=True, scope="session")
def kernel_speaks_xfrm() -> bool:
    """Tell whether there is an XFRM socket here at all."""
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, xm.NETLINK_XFRM).close()
    except OSError:
        return False
    return True


@pytest.fixture
def xfrm_here(kernel_speaks_xfrm: bool) -> None:  # noqa: FBT001
    if not kernel_speaks_xfrm:
        pytest.skip("this machine's kernel has no CONFIG_XFRM_USER")


LIVE = pytest.mark.usefixtures("xfrm_here")
ENDS = pytest.mark.parametrize(
    "ends", [("10.8.0.2", "10.8.0.1"), ("fd08::2", "fd08::1")], ids=["ipv4", "ipv6"]
)


@LIVE
@ENDS
def test_the_kernel_allocates_the_spi_asked_for(ends: tuple[str, str]) -> None:
    def work() -> tuple[xs.Sa, list[xs.Sa]]:
        xfrm = XfrmSocket()
        return xfrm.allocate_spi(xs.Sa(*ends, reqid=7, mode=xs.MODE_TUNNEL)), xfrm.states()

    reply, dumped = in_fresh_netns(work)
    assert ESP_SPIS[0] <= reply.spi <= ESP_SPIS[1]
    assert (reply.source, reply.destination, reply.reqid, reply.mode) == (*ends, 7, xs.MODE_TUNNEL)
    assert reply.is_larval
    assert [(sa.spi, sa.lifetime) for sa in dumped] == [(reply.spi, reply.lifetime)]


@LIVE
def test_a_refusal_carries_errno_and_the_kernels_words() -> None:
    with pytest.raises(NetlinkRefusedError) as refusal:
        in_fresh_netns(lambda: XfrmSocket().allocate_spi(xs.Sa("10.8.0.2", "10.8.0.1"), (2, 1)))
    assert refusal.value.errno == EINVAL
    # Kernels before 6.3 give no reason here.
    assert refusal.value.extack in {"", "Invalid SPI range: min > max"}
    assert str(refusal.value).startswith("ALLOCSPI refused: Invalid argument (errno 22)")


@LIVE
@ENDS
def test_the_kernel_takes_an_sa_or_says_what_it_lacks(ends: tuple[str, str]) -> None:
    keyed = (
        xa.authentication("hmac(sha256)", bytes(range(32)), 128),
        xa.encryption("cbc(aes)", bytes(range(16))),
    )
    wanted = xs.Sa(*ends, spi=0x1234, reqid=7, attributes=keyed)

    def work() -> xs.Sa | None:
        xfrm = XfrmSocket()
        xfrm.add(wanted)
        return xfrm.find(wanted)

    try:
        found = in_fresh_netns(work)
    except NetlinkRefusedError as refusal:
        if refusal.errno not in {ENOENT, ENOSYS, EPROTONOSUPPORT}:
            raise
        pytest.skip(f"this machine's kernel lacks ESP or its algorithms: {refusal}")
    assert found is not None
    assert found.attribute("XFRMA_ALG_CRYPT") == dict(keyed)["XFRMA_ALG_CRYPT"]
    assert found.attribute("XFRMA_ALG_AUTH_TRUNC") == dict(keyed)["XFRMA_ALG_AUTH_TRUNC"]
    assert (found.reqid, found.is_larval) == (7, False)


@LIVE
@ENDS
def test_the_kernel_gives_a_policy_back_as_it_was_sent(ends: tuple[str, str]) -> None:
    length = 32 if xs.family_of(ends[0]) == xs.AF_INET else 128
    selector = xs.Selector(f"{ends[0]}/{length}", f"{ends[1]}/{length}", 17, destination_port=80)
    template = xs.Template(*ends, mode=xs.MODE_TUNNEL, reqid=7)

    def work() -> list[tuple[bytes, dict[str, bytes]]]:
        xfrm = XfrmSocket()
        xfrm.add_policy(xs.Policy(selector, xs.DIR_OUT, template, priority=123))
        return xfrm.policies()

    [(info, attributes)] = in_fresh_netns(work)
    assert xs.Selector.unpack(info[:56], 0) == selector
    assert int.from_bytes(info[152:156], "little") == 123
    assert attributes["XFRMA_TMPL"] == template.pack()


@LIVE
def test_an_expiry_is_heard() -> None:
    def work() -> tuple[xs.Sa, object]:
        sysctl = Path("/proc/sys/net/core/xfrm_acq_expires")
        try:
            sysctl.write_text("1", encoding="ascii")
        except OSError:
            return xs.Sa("::", "::"), None
        xfrm = XfrmSocket(groups=(xm.GROUP_EXPIRE,))
        sa = xfrm.allocate_spi(xs.Sa("10.8.0.2", "10.8.0.1"))
        return sa, xfrm.next_expiry(sa, 10)

    sa, expiry = in_fresh_netns(work)
    if not sa.spi:
        pytest.skip("without root net.core.xfrm_acq_expires is out of reach")
    assert getattr(expiry, "hard", None) is True
    assert getattr(expiry, "sa", sa).destination == sa.destination


@LIVE
def test_asking_without_the_capability_is_refused() -> None:
    def work() -> None:
        xfrm = XfrmSocket()
        with without_net_admin():
            xfrm.states()

    with pytest.raises(NetlinkRefusedError) as refusal:
        in_fresh_netns(work)
    assert refusal.value.errno == EPERM


@pytest.mark.parametrize(("address", "prefix"), [("fd77::5", 128), ("10.77.0.5", 32)])
def test_all_32_bits_of_the_address_flags_are_sent(address: str, prefix: int) -> None:
    if ":" in address and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this machine's kernel has no IPv6")

    def work() -> rtnl_address.Address | None:
        addresses = rtnl_address.AddressSocket()
        wanted = rtnl_address.Address(address, 1, prefix, flags=0x202, preferred=0, valid=1000)
        addresses.replace(wanted)
        return addresses.find(address)

    found = in_fresh_netns(work)
    assert found is not None
    # IFA_F_NOPREFIXROUTE does not fit the eight bits of the header; IFA_F_NODAD is IPv6's.
    assert found.flags & 0x202 == (0x202 if ":" in address else 0x200)
    assert found.flags & rtnl_address.IFA_F_DEPRECATED
    assert (found.prefix, found.preferred) == (prefix, 0)

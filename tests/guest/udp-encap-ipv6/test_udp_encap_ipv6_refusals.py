# SPDX-License-Identifier: GPL-2.0-only
"""E4: where XFRM_SA_XFLAG_UDP_ZERO_CSUM6_TX is refused, and who may not set it."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import esp_in_udp as eu
import xfrm_attributes as xa
import xfrm_structures as xs
from callers import without_net_admin
from netlink_frames import NetlinkRefusedError
from xfrm_netlink import XfrmSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from namespaces import Namespace

V4 = ("10.8.0.1", "10.8.0.2")
V6 = ("fd08::1", "fd08::2")
FLAG = xa.extra_flags(eu.ZERO_CHECKSUM)
ENCAP = xa.encap(eu.ENCAP_PORT, eu.ENCAP_PORT)
AEAD = xa.aead(eu.KEY)
CIPHER = xa.encryption("cbc(aes)", bytes(16))
PACKET_OFFLOAD = 4
UNKNOWN_OFFLOAD = 0x80


def sa(*attributes: tuple[str, bytes], ends: tuple[str, str] = V6) -> xs.Sa:
    """Return an SA with the flag."""
    return xs.Sa(*ends, spi=eu.SPI, replay_window=0, attributes=(*attributes, FLAG))


NOT_FOR = {
    "IPv4": sa(AEAD, ENCAP, ends=V4),
    "ESP without UDP": sa(AEAD),
    "ESP in TCP": sa(AEAD, xa.encap(eu.ENCAP_PORT, eu.ENCAP_PORT, xa.ENCAP_TCP)),
    "no ICV": sa(CIPHER, ENCAP),
    "an ICV of no bytes": sa(CIPHER, xa.authentication("digest_null", b"", 0), ENCAP),
}


@pytest.fixture
def xfrm(netns: Namespace) -> Iterator[XfrmSocket]:
    """Open an XFRM socket."""
    with netns.inside():
        opened = XfrmSocket()
    yield opened
    opened.flush()
    opened.close()


def refusal(xfrm: XfrmSocket, wanted: xs.Sa, *, update: bool = False) -> NetlinkRefusedError | None:
    """Ask for an SA and return the refusal; None when it was granted."""
    try:
        if update:
            xfrm.update(wanted)
        else:
            xfrm.add(wanted)
    except NetlinkRefusedError as error:
        return error
    return None


def gives_reasons(xfrm: XfrmSocket) -> bool:
    """Tell whether this kernel's XFRM explains a refusal at all."""
    refused = refusal(xfrm, xs.Sa(*V4, spi=1, attributes=(xa.aead(bytes(20), name="nothing"),)))
    return bool(refused and refused.extack)


def knows_directions(xfrm: XfrmSocket) -> bool:
    """Tell whether this kernel's SAs have a direction."""
    made = xs.Sa(*V4, spi=2, attributes=(AEAD, xa.sa_direction(xs.DIR_IN)))
    xfrm.add(made)
    found = xfrm.find(made)
    xfrm.delete(made)
    return found is not None and found.attribute("XFRMA_SA_DIR") is not None


def offloads_in_migration(xfrm: XfrmSocket, device: int) -> bool:
    """Tell whether MIGRATE looks at XFRMA_OFFLOAD_DEV, by flags that no kernel has."""
    return migration_refusal(xfrm, (AEAD, ENCAP), xa.offload(device, UNKNOWN_OFFLOAD)) is not None


def migration_refusal(
    xfrm: XfrmSocket, has: tuple[tuple[str, bytes], ...], asked: tuple[str, bytes]
) -> NetlinkRefusedError | None:
    """Migrate an SA and ask for something more; return the refusal, None when it was granted."""
    made = xs.Sa(*V6, spi=eu.SPI, mode=xs.MODE_TUNNEL, replay_window=0, attributes=has)
    caught = eu.policy(made, xs.DIR_OUT)
    xfrm.add(made)
    xfrm.add_policy(caught)
    try:
        xfrm.migrate(caught, made, (V6[0], "fd08::3"), asked)
    except NetlinkRefusedError as error:
        return error
    finally:
        xfrm.flush()
        xfrm.flush_policies()
    return None


def explained(refused: NetlinkRefusedError | None, xfrm: XfrmSocket, case: str) -> None:
    """Assert that a refusal is EINVAL and, where XFRM says why, that it names the flag."""
    assert refused is not None, f"the flag was granted for {case}, expected EINVAL"
    assert refused.errno == errno.EINVAL, f"{case}: {refused}; expected EINVAL"
    named = "UDP_ZERO_CSUM6_TX" in refused.extack
    assert named or not gives_reasons(xfrm), f"{case}: {refused}; the reason is not the flag"


@pytest.mark.proof(red=r"the flag was granted for (IPv4|ESP|no ICV|an ICV).*, expected EINVAL$")
@pytest.mark.parametrize("case", NOT_FOR)
def test_the_flag_is_refused_for(xfrm: XfrmSocket, case: str) -> None:
    explained(refusal(xfrm, NOT_FOR[case]), xfrm, case)
    left = len(xfrm.states())
    assert left == 0, f"the refused NEWSA left {left} SAs behind"


@pytest.mark.control
@pytest.mark.parametrize("case", NOT_FOR)
def test_without_the_flag_there_is_no_refusal_for(xfrm: XfrmSocket, case: str) -> None:
    refused = refusal(xfrm, replace(NOT_FOR[case], attributes=NOT_FOR[case].attributes[:-1]))
    assert refused is None, f"{case}, without the flag: {refused}"


@pytest.mark.proof(red=r"the flag was granted for UPDSA without UDP, expected EINVAL$")
def test_updsa_is_refused_alike(xfrm: XfrmSocket) -> None:
    plain = sa(AEAD)
    xfrm.add(replace(plain, attributes=(AEAD,)))
    explained(refusal(xfrm, plain, update=True), xfrm, "UPDSA without UDP")


@pytest.mark.proof(red=r"the flag was granted for IPv4.*, expected EINVAL for each$")
def test_what_only_some_kernels_know_is_refused_too(netns: Namespace, xfrm: XfrmSocket) -> None:
    # IPv4 is here for those that refuse the others anyway, to have something to be red about.
    lo = netns.index("lo")
    cases = {
        "IPv4": NOT_FOR["IPv4"],
        "the non-IKE marker": sa(AEAD, xa.encap(1, 2, xa.ENCAP_NON_IKE)),
    }
    # Before 6.10 an SA has no direction; up to 6.1 none in UDP can be offloaded, flag or not.
    if knows_directions(xfrm):
        cases |= {
            "an input SA": sa(AEAD, ENCAP, xa.sa_direction(xs.DIR_IN)),
            "crypto offload": sa(AEAD, ENCAP, xa.offload(lo)),
            "packet offload": sa(AEAD, ENCAP, xa.offload(lo, PACKET_OFFLOAD)),
        }
    refused = {
        case: refusal(xfrm, replace(wanted, spi=spi))
        for spi, (case, wanted) in enumerate(cases.items(), eu.SPI)
    }
    granted = ", ".join(case for case, error in refused.items() if error is None)
    assert not granted, f"the flag was granted for {granted}, expected EINVAL for each"
    for case, error in refused.items():
        explained(error, xfrm, case)


@pytest.mark.proof(red=r"the flag was granted for (IPv4|offload in migration), expected EINVAL$")
def test_migration_to_an_offloading_device_is_refused(netns: Namespace, xfrm: XfrmSocket) -> None:
    lo = netns.index("lo")
    if not offloads_in_migration(xfrm, lo):
        explained(refusal(xfrm, NOT_FOR["IPv4"]), xfrm, "IPv4")
        return
    refused = migration_refusal(xfrm, (AEAD, ENCAP, FLAG), xa.offload(lo))
    assert refused is not None, "the flag was granted for offload in migration, expected EINVAL"
    # MIGRATE answers ENODATA whatever kept it from making the new SA.
    assert refused.errno == errno.ENODATA, f"{refused}; expected ENODATA"
    assert "UDP_ZERO_CSUM6_TX" in refused.extack, f"{refused}; the reason is not the flag"
    assert migration_refusal(xfrm, (AEAD, ENCAP), xa.offload(lo)) is None, (
        "without the flag MIGRATE with XFRMA_OFFLOAD_DEV was refused too"
    )


@pytest.mark.control
def test_an_output_sa_may_have_it(xfrm: XfrmSocket) -> None:
    refused = refusal(xfrm, sa(AEAD, ENCAP, xa.sa_direction(xs.DIR_OUT)))
    assert refused is None, f"the flag on an output SA: {refused}"


@pytest.mark.control
def test_integrity_without_aead_is_enough(xfrm: XfrmSocket) -> None:
    icv = xa.authentication("hmac(sha256)", bytes(32), 128)
    refused = refusal(xfrm, sa(CIPHER, icv, ENCAP))
    assert refused is None, f"the flag with an ICV of its own: {refused}"


@pytest.mark.control
@pytest.mark.parametrize("name", ["XFRMA_SA_EXTRA_FLAGS", "XFRMA_ENCAP"])
@pytest.mark.parametrize("size", [0, 3])
def test_a_short_attribute_is_refused(xfrm: XfrmSocket, name: str, size: int) -> None:
    whole = dict((AEAD, ENCAP, FLAG))
    short = {**whole, name: whole[name][:size]}
    refused = refusal(xfrm, replace(sa(), attributes=tuple(short.items())))
    assert refused is not None, f"{name} of {size} bytes was taken"
    assert refused.errno in {errno.EINVAL, errno.ERANGE}, f"{refused}; expected EINVAL or ERANGE"
    assert xfrm.states() == [], "the refused NEWSA left an SA behind"


@pytest.mark.control
def test_it_takes_cap_net_admin(xfrm: XfrmSocket) -> None:
    with without_net_admin(), pytest.raises(NetlinkRefusedError) as refused:
        xfrm.add(sa(AEAD, ENCAP))
    assert refused.value.errno == errno.EPERM, f"{refused.value}; expected EPERM"

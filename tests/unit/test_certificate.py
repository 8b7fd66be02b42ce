"""Certificates as `mailrelay.ssh.certificate` reads them: also those that asyncssh cannot read, and none that is damaged."""

import base64
import subprocess
from pathlib import Path

import asyncssh
import pytest
from asyncssh.packet import String
from harness.processes import program
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.ssh import certificate
from mailrelay.ssh.certificate import HOST, USER, fault, parse
from mailrelay.ssh.known_hosts import HostKeyStatus, judge, look_up

KINDS = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"]
AUTHORITY, KEY, OTHER = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
NAME = "mail.example.org"
NOW = 1_800_000_000


def blob(key: asyncssh.SSHKey = KEY, authority: asyncssh.SSHKey = AUTHORITY, **options: object) -> bytes:
    options = {"principals": [NAME], "valid_after": NOW - 10, "valid_before": NOW + 10, **options}
    return authority.generate_host_certificate(key, "id", **options).public_data  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["ssh-ed25519", "ssh-rsa"])
def test_the_keys_and_the_facts_of_a_certificate_are_read(kind: str, by: str) -> None:
    key, authority = asyncssh.generate_private_key(kind), asyncssh.generate_private_key(by)
    found = parse(blob(key, authority, principals=["a", "b"]))
    assert found.key.public_data == key.public_data and found.authority.public_data == authority.public_data
    assert (found.kind, found.principals, found.critical) == (HOST, ("a", "b"), ())
    assert (found.valid_after, found.valid_before) == (NOW - 10, NOW + 10)
    assert found.signature_algorithm == ("ssh-ed25519" if by == "ssh-ed25519" else "rsa-sha2-256")


def test_a_critical_option_that_the_library_does_not_know_is_read(tmp_path: Path) -> None:
    keygen = program("ssh-keygen", "openssh-client")
    for name in ("ca", "key"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    sign = [keygen, "-q", "-s", tmp_path / "ca", "-I", "x", "-h", "-O", "critical:colour=blue", tmp_path / "key.pub"]
    subprocess.run(sign, check=True)
    found = parse(base64.b64decode((tmp_path / "key-cert.pub").read_text().split()[1]))
    assert found.critical == ("colour",)
    assert "colour" in fault(found, kind=HOST, name=NAME, now=NOW)


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        ({}, NAME, ""),
        ({"principals": []}, NAME, ""),
        ({"principals": ["other", NAME]}, NAME, ""),
        ({"valid_after": NOW, "valid_before": NOW + 1}, NAME, ""),
        ({"valid_after": 0, "valid_before": NOW}, NAME, "expired on 2027-01-15 08:00 UTC"),
        ({"valid_after": NOW + 1, "valid_before": NOW + 2}, NAME, "is not valid before 2027-01-15 08:00 UTC"),
        ({"principals": ["other"]}, NAME, f"is for other, not for {NAME}"),
        ({"principals": ["*.example.org"]}, NAME, f"is for *.example.org, not for {NAME}"),
    ],
)
def test_a_host_certificate_is_valid_for_its_time_and_its_names(
    options: dict[str, object], name: str, why: str
) -> None:
    assert fault(parse(blob(**options)), kind=HOST, name=name, now=NOW) == why


def test_a_certificate_of_the_other_kind_is_not_valid_nor_one_for_nobody() -> None:
    assert "is not a user certificate" in fault(parse(blob()), kind=USER, name=NAME, now=NOW)
    user = AUTHORITY.generate_user_certificate(KEY, "id", principals=[], valid_before=NOW + 10)
    assert "is not a host certificate" in fault(parse(user.public_data), kind=HOST, name=NAME, now=NOW)
    assert fault(parse(user.public_data), kind=USER, name="me", now=NOW) == "is for no name, not for me"


def test_the_options_of_a_user_certificate_that_sshd_knows_do_not_spoil_it() -> None:
    made = AUTHORITY.generate_user_certificate(
        KEY, "id", principals=["me"], valid_before=NOW + 10, force_command="x", source_address=["192.0.2.0/24"]
    )
    found = parse(made.public_data)
    assert fault(found, kind=USER, name="me", now=NOW) == ""
    assert (set(found.critical), found.sources) == ({"force-command", "source-address"}, "192.0.2.0/24")


@pytest.mark.parametrize(("kind", "bits"), [("ssh-rsa", 2048), ("ssh-ed25519", 0), ("ecdsa-sha2-nistp256", 0)])
def test_the_size_of_an_rsa_key_is_known(kind: str, bits: int) -> None:
    assert certificate.rsa_bits(asyncssh.generate_private_key(kind).public_data) == bits


def test_the_size_of_octets_that_are_no_key_is_none() -> None:
    assert certificate.rsa_bits(b"") == certificate.rsa_bits(String("ssh-rsa") + b"\0") == 0


def test_the_algorithm_of_the_authority_must_be_allowed() -> None:
    found = parse(blob())
    assert fault(found, kind=HOST, name=NAME, now=NOW, signatures={"ssh-ed25519"}) == ""
    assert "CASignatureAlgorithms" in fault(found, kind=HOST, name=NAME, now=NOW, signatures={"rsa-sha2-512"})


def test_a_time_without_end_is_shown() -> None:
    assert certificate.moment((1 << 64) - 1) == "a time without end"


def test_a_plain_key_is_no_certificate() -> None:
    with pytest.raises(ValueError, match="not a certificate"):
        parse(KEY.public_data)


KNOWN = look_up([(Path("known_hosts"), f"@cert-authority * {AUTHORITY.export_public_key().decode()}")], NAME, 22)
VALID = blob()


def test_a_valid_certificate_of_a_known_authority_is_trusted() -> None:
    assert judge(KNOWN, VALID, NOW).status is HostKeyStatus.TRUSTED
    assert judge(KNOWN, blob(authority=OTHER), NOW).status is HostKeyStatus.UNKNOWN


@given(st.integers(0, len(VALID) - 1), st.integers(1, 255))
def test_a_certificate_with_one_octet_changed_is_not_trusted(position: int, change: int) -> None:
    changed = bytearray(VALID)
    changed[position] ^= change
    assert judge(KNOWN, bytes(changed), NOW).status is HostKeyStatus.UNKNOWN


@given(st.binary(max_size=200) | st.integers(0, len(VALID) - 1).map(lambda end: VALID[:end]))
def test_octets_that_are_no_certificate_are_not_trusted(octets: bytes) -> None:
    assert judge(KNOWN, octets, NOW).status is HostKeyStatus.UNKNOWN

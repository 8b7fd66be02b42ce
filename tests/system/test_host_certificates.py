"""Host certificates as ssh(1) judges them: one that is not valid leaves the decision to the plain key, for the dial and for
`mailrelay trust` alike."""

import subprocess

import pytest
from harness.command import run
from harness.login import Scene
from harness.login import at as at
from harness.person import Person
from harness.processes import program
from harness.sshd import ALIAS, make_key

from mailrelay.mail.outcome import Cause, Stage
from mailrelay.ssh.host_key_scan import scan

pytestmark = pytest.mark.system

NAMED = ("-n", "127.0.0.1")


def certify(at: Scene, *options: str) -> str:
    """Gives the server a certificate; the line of the authority for known_hosts."""
    signer = at.directory / "authority"
    key = at.sshd.directory / "host.pub"
    make_key(signer)
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-s", signer, "-I", "test", "-h", *options, key], check=True)
    at.server(HostCertificate=at.sshd.directory / "host-cert.pub")
    return f"@cert-authority * {signer.with_suffix('.pub').read_text()}"


def plain(at: Scene) -> str:
    return f"[{at.sshd.host}]:{at.sshd.port} {at.sshd.host_key}\n"


async def trusted(at: Scene, *options: str) -> tuple[int, str, str]:
    """What `mailrelay trust` answers."""
    directory = at.directory / "person"
    directory.mkdir(exist_ok=True)
    person = Person(directory)
    person.config.write_text(
        f'relayhost.x.ssh = "{ALIAS}"\nrelayhost.x.ssh_config = "{at.sshd.ssh_config}"\n'
        f'queue.directory = "{person.spool}"\nnotify.desktop = false\n'
    )
    said = await run(person, "trust", *options)
    return said.status, said.out, said.err


INVALID = {
    "expired": ((*NAMED, "-V", "20200101:20210101"), "expired on 2021-01-01"),
    "not yet valid": ((*NAMED, "-V", "20400101:20410101"), "is not valid before 2040-01-01"),
    "another name": (("-n", "other.example"), "is for other.example, not for 127.0.0.1"),
    "a pattern as name": (("-n", "127.*"), "is for 127.*, not for 127.0.0.1"),
    "unknown critical option": (
        (*NAMED, "-O", "critical:colour=blue"),
        "critical option that is not known here: colour",
    ),
}


@pytest.mark.parametrize(("options", "why"), INVALID.values(), ids=INVALID)
async def test_a_certificate_that_is_not_valid_leaves_the_plain_key_to_count(
    at: Scene, options: tuple[str, ...], why: str
) -> None:
    authority = certify(at, *options)
    at.known_hosts.write_text(authority + plain(at))
    await at.logs_in()
    status, out, _ = await trusted(at)
    assert status == 0 and ": trusted" in out and why in out
    assert [text for check, ok, text, _ in await at.checked() if check == "host key" and ok and why in text]

    at.known_hosts.write_text(authority)
    outcome = await at.refused()
    assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, Cause.HOST_KEY_UNKNOWN)
    assert why in outcome.text and "The host key of remote is not known" in outcome.text
    assert "valid host certificate" in outcome.fix and "mailrelay trust" in outcome.fix
    status, out, _ = await trusted(at)
    assert status == 1 and ": unknown" in out and why in out

    at.known_hosts.write_text(f"{authority}[{at.sshd.host}]:{at.sshd.port} {make_key(at.directory / 'another')}\n")
    outcome = await at.refused()
    assert outcome.cause is Cause.HOST_KEY_CHANGED and why in outcome.text
    status, out, _ = await trusted(at)
    assert status == 1 and ": changed" in out
    assert at.sshd.logins() == 3


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_a_certificate_that_is_valid_needs_no_plain_key(at: Scene, kind: str) -> None:
    for file in (at.sshd.directory / "host", at.sshd.directory / "host.pub"):
        file.unlink()
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", kind, "-N", "", "-f", at.sshd.directory / "host"], check=True)
    authority = certify(at, *NAMED)
    at.known_hosts.write_text(authority)
    await at.logs_in()
    status, out, _ = await trusted(at)
    assert status == 0
    # A pattern that matches the name with the port and without it is one line.
    assert out.count("  cert-authority ssh-ed25519 SHA256:") == 1 and out.count("  authority ssh-ed25519 SHA256:") == 1


async def test_a_certificate_without_names_counts_as_ssh_counts_it(at: Scene) -> None:
    at.known_hosts.write_text(certify(at))
    if (await at.ssh()).returncode == 0:
        await at.logs_in()
    else:
        await at.refused()


@pytest.mark.parametrize("pattern", ["other.example", "!*,*", "[127.0.0.1]:1"])
async def test_an_authority_for_other_hosts_certifies_none_here(at: Scene, pattern: str) -> None:
    authority = certify(at, *NAMED).replace("@cert-authority *", f"@cert-authority {pattern}")
    at.known_hosts.write_text(authority)
    outcome = await at.refused()
    assert outcome.cause is Cause.HOST_KEY_UNKNOWN and "mailrelay trust" in outcome.fix
    assert (await trusted(at))[0] == 1
    at.known_hosts.write_text(authority + plain(at))
    await at.logs_in()


@pytest.mark.parametrize(
    ("separators", "counts"), [(("\t", "\t", " "), False), ((" ", "\t", "\t"), True), (("\t", "\t", "\t"), True)]
)
async def test_an_authority_counts_with_the_blanks_with_which_it_counts_for_ssh(
    at: Scene, separators: tuple[str, str, str], counts: bool
) -> None:
    marker, hosts, kind, key = certify(at, *NAMED).split()[:4]
    first, second, third = separators
    at.known_hosts.write_text(f"{marker}{first}{hosts}{second}{kind}{third}{key}\n")
    if counts:
        await at.logs_in()
    else:
        outcome = await at.refused()
        assert f"{at.known_hosts}:1 cannot be read" in outcome.text


async def test_a_certificate_of_another_authority_leaves_the_plain_key_to_count(at: Scene) -> None:
    certify(at, *NAMED)
    ours = f"@cert-authority * {make_key(at.directory / 'ours')}\n"
    at.known_hosts.write_text(ours)
    outcome = await at.refused()
    assert outcome.cause is Cause.HOST_KEY_UNKNOWN and "an authority that known_hosts does not list" in outcome.text
    at.known_hosts.write_text(ours + plain(at))
    await at.logs_in()
    status, out, _ = await trusted(at)
    assert status == 0 and "an authority that known_hosts does not list" in out


async def test_a_plain_key_can_be_accepted_beside_an_authority(at: Scene) -> None:
    at.known_hosts.write_text(certify(at, *NAMED, "-V", "20200101:20210101"))
    status, _, err = await trusted(at, "--yes")
    assert status == 0, err
    assert "@cert-authority" in at.known_hosts.read_text()
    await at.logs_in()


REVOKING = {
    "the host key": lambda at: at.sshd.host_key,
    "the authority": lambda at: (at.directory / "authority.pub").read_text(),
    "nothing that is a key": lambda at: "junk",
}


@pytest.mark.parametrize("what", [*REVOKING, "the host key in a list", "a serial in a list", "a missing file"])
async def test_a_file_of_revoked_keys_refuses_what_it_names(at: Scene, what: str) -> None:
    at.known_hosts.write_text(certify(at, *NAMED, "-z", "7") + plain(at))
    revoked = at.directory / "revoked"
    keygen = [program("ssh-keygen", "openssh-client"), "-q", "-k", "-f", revoked]
    match what:
        case "the host key in a list":
            subprocess.run([*keygen, at.sshd.directory / "host.pub"], check=True)
        case "a serial in a list":
            (at.directory / "spec").write_text("serial: 7\n")
            subprocess.run([*keygen, "-s", at.directory / "authority.pub", at.directory / "spec"], check=True)
        case "a missing file":
            pass
        case _:
            revoked.write_text(f"# revoked\n{REVOKING[what](at)}\n")
    at.client(f"RevokedHostKeys {revoked}")
    outcome = await at.refused()
    assert outcome.cause is Cause.HOST_KEY_REVOKED and f"{revoked} (RevokedHostKeys)" in outcome.text
    assert ("Correct the RevokedHostKeys" in outcome.fix) is (what in ("nothing that is a key", "a missing file"))
    status, out, err = await trusted(at, "--yes")
    assert status == 1 and ": revoked" in out and "RevokedHostKeys" in out and "revoked" in err
    subprocess.run([*keygen, make_other(at)], check=True)
    await at.logs_in()


def make_other(at: Scene) -> str:
    make_key(at.directory / "other")
    (at.directory / "revoked").unlink(missing_ok=True)
    return f"{at.directory}/other.pub"


async def test_an_rsa_host_key_that_is_too_short_is_refused(at: Scene) -> None:
    for file in (at.sshd.directory / "host", at.sshd.directory / "host.pub"):
        file.unlink()
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", at.sshd.directory / "host"], check=True)
    at.server()
    at.known_hosts.write_text(f"[{at.sshd.host}]:{at.sshd.port} {(at.sshd.directory / 'host.pub').read_text()}")
    await at.logs_in()
    at.client("RequiredRSASize 3072")
    outcome = await at.refused()
    assert outcome.stage is Stage.HOST_KEY and "2048 bits" in outcome.text and "RequiredRSASize" in outcome.fix
    status, out, err = await trusted(at, "--yes")
    assert status == 1 and ": too short" in out and "2048 bits" in err


async def test_a_server_with_a_certificate_counts_by_its_plain_key_where_only_certificates_are_asked_for(
    at: Scene,
) -> None:
    certify(at, *NAMED)
    at.known_hosts.write_text(plain(at))
    at.client("HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com")
    await at.logs_in()


@pytest.mark.parametrize("revoked", ["authority", "host key"])
@pytest.mark.parametrize("as_jump", [False, True], ids=["itself", "jump"])
async def test_a_revoked_key_is_refused_whatever_else_is_valid(at: Scene, revoked: str, as_jump: bool) -> None:
    authority = certify(at, *NAMED)
    key = (at.directory / "authority.pub").read_text() if revoked == "authority" else f"{at.sshd.host_key}\n"
    at.known_hosts.write_text(f"{authority}{plain(at)}@revoked * {key}")
    if as_jump:
        text = at.sshd.ssh_config.read_text()
        behind = text.replace("HostName 127.0.0.1", "HostName localhost").replace(
            f"Host {ALIAS}\n", f"Host {ALIAS}\n  ProxyJump hop\n"
        )
        at.sshd.ssh_config.write_text(behind + text.replace(f"Host {ALIAS}", "Host hop"))
    outcome = await at.refused()
    assert (outcome.stage, outcome.cause) == (Stage.HOST_KEY, Cause.HOST_KEY_REVOKED)
    assert ("hop" in outcome.text) is as_jump and f"{at.known_hosts}:3" in outcome.text
    found, fault = await scan(at.relayhost)
    assert fault is None and [offer.status for offer in found] == ["revoked"]
    status, out, err = await trusted(at)
    assert status == 1 and ": revoked" in out and "revoked" in err
    assert at.sshd.logins() == 0

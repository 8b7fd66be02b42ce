"""What known_hosts says of a host, and what an offered key means then: over the whole table."""

from pathlib import Path

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.outcome import Cause, Stage
from mailrelay.ssh.known_hosts import (
    HostKey,
    HostKeyStatus,
    KnownHost,
    algorithms,
    check,
    look_up,
    outcome,
    read,
    with_key,
)
from mailrelay.ssh.revoked_keys import RevokedKeys

FILE = Path("known_hosts")
# Generated once, by ssh-keygen -H, for [mail.example.org]:2222.
HASHED = "|1|OUzrCiBPpQXkiGm+n46uxZpCChc=|1vfDwsxkG5S2++nbpyk1GbeQN4I="

KEY, OTHER, THIRD = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")


def line(names: str, key: asyncssh.SSHKey = KEY, marker: str = "") -> str:
    return f"{marker} {names} {key.export_public_key().decode()}".lstrip()


def about(text: str, host: str = "mail.example.org", port: int = 22, alias: str | None = None) -> KnownHost:
    return look_up([(FILE, text)], host, port, alias)


@pytest.mark.parametrize(
    ("names", "host", "port", "is_known"),
    [
        ("mail.example.org", "mail.example.org", 22, True),
        ("mail.example.org", "MAIL.example.org", 22, True),
        ("Mail.Example.Org", "mail.example.org", 22, True),
        ("mail.example.org,192.0.2.1", "192.0.2.1", 22, True),
        ("other.example.org", "mail.example.org", 22, False),
        ("mail.example.or", "mail.example.org", 22, False),
        ("*.example.org", "mail.example.org", 22, True),
        ("*.example.org", "example.org", 22, False),
        ("mail?.example.org", "mail1.example.org", 22, True),
        ("*,!mail.example.org", "mail.example.org", 22, False),
        ("!mail.example.org,*", "mail.example.org", 22, False),
        ("!other.example.org,*", "mail.example.org", 22, True),
        ("[mail.example.org]:2222", "mail.example.org", 2222, True),
        ("[mail.example.org]:2222", "mail.example.org", 22, False),
        ("[mail.example.org]:2222", "mail.example.org", 2223, False),
        ("[*.example.org]:2222", "mail.example.org", 2222, True),
        ("[::1]:2222", "::1", 2222, True),
        ("mail.example.org", "mail.example.org", 2222, True),
        (HASHED, "mail.example.org", 2222, True),
        (HASHED, "mail.example.org", 22, False),
        ("|1|nonsense|1vfD", "mail.example.org", 22, False),
        ("|1|OUz|1vfD", "mail.example.org", 22, False),
        ("|2|OUzr|1vfD", "mail.example.org", 22, False),
        ("[m]ail.example.org", "mail.example.org", 22, False),
    ],
)
def test_a_host_is_known_by_the_names_that_ssh_would_take(names: str, host: str, port: int, is_known: bool) -> None:
    status = check(about(line(names), host, port), KEY)
    assert status is (HostKeyStatus.TRUSTED if is_known else HostKeyStatus.UNKNOWN)


def test_an_alias_stands_for_host_and_port_and_nothing_else_counts_then() -> None:
    text = line("alias") + line("[mail.example.org]:2222", OTHER) + line("mail.example.org", THIRD)
    said = about(text, port=2222, alias="Alias")
    assert check(said, KEY) is HostKeyStatus.TRUSTED
    assert check(said, OTHER) is check(said, THIRD) is HostKeyStatus.CHANGED


@pytest.mark.parametrize(
    ("text", "is_authority", "status"),
    [
        ("", False, HostKeyStatus.UNKNOWN),
        ("", True, HostKeyStatus.UNKNOWN),
        (line("*"), False, HostKeyStatus.TRUSTED),
        (line("*"), True, HostKeyStatus.UNKNOWN),
        (line("*", OTHER), False, HostKeyStatus.CHANGED),
        (line("*", ECDSA), False, HostKeyStatus.CHANGED),
        (line("*", OTHER), True, HostKeyStatus.UNKNOWN),
        (line("*", OTHER) + line("*"), False, HostKeyStatus.TRUSTED),
        (line("*", marker="@cert-authority"), True, HostKeyStatus.TRUSTED),
        (line("*", marker="@cert-authority"), False, HostKeyStatus.UNKNOWN),
        (line("*", OTHER, "@cert-authority"), True, HostKeyStatus.UNKNOWN),
        (line("*", marker="@revoked"), False, HostKeyStatus.REVOKED),
        (line("*", marker="@revoked"), True, HostKeyStatus.REVOKED),
        (line("*", marker="@revoked") + line("*"), False, HostKeyStatus.REVOKED),
        (line("*") + line("*", marker="@revoked"), False, HostKeyStatus.REVOKED),
        (line("*", marker="@cert-authority") + line("*", marker="@revoked"), True, HostKeyStatus.REVOKED),
        (line("*", OTHER, "@revoked"), False, HostKeyStatus.UNKNOWN),
        (line("*", OTHER, "@revoked") + line("*", THIRD), False, HostKeyStatus.CHANGED),
        (line("*", marker="@something"), False, HostKeyStatus.UNKNOWN),
        ("# " + line("*"), False, HostKeyStatus.UNKNOWN),
        ("#" + line("*"), False, HostKeyStatus.UNKNOWN),
        ("  " + line("*"), False, HostKeyStatus.TRUSTED),
        (line("*").replace(" ", "\t"), False, HostKeyStatus.TRUSTED),
        (line("*", marker="@revoked").replace(" ", "\t"), False, HostKeyStatus.REVOKED),
        ("* ssh-ed25519 broken \u2028" + line("*"), False, HostKeyStatus.UNKNOWN),
        (line("*").replace("\n", "\r\n"), False, HostKeyStatus.TRUSTED),
        ("* ssh-ed25519 broken\n*\n\n@revoked\n" + line("*"), False, HostKeyStatus.TRUSTED),
    ],
)
def test_the_status_of_a_key_follows_from_all_lines_about_the_host(
    text: str, is_authority: bool, status: HostKeyStatus
) -> None:
    assert check(about(text), KEY, is_authority=is_authority) is status


def test_a_key_known_at_port_22_is_taken_at_another_port_but_its_absence_there_is_no_change() -> None:
    assert check(about(line("mail.example.org"), port=2222), KEY) is HostKeyStatus.TRUSTED
    assert check(about(line("mail.example.org", OTHER), port=2222), KEY) is HostKeyStatus.UNKNOWN
    assert check(about(line("mail.example.org", marker="@revoked"), port=2222), KEY) is HostKeyStatus.REVOKED


@given(st.text())
def test_no_known_hosts_file_is_beyond_reading(text: str) -> None:
    assert check(about(text + "\n" + line("mail.example.org")), KEY) in (HostKeyStatus.TRUSTED, HostKeyStatus.REVOKED)


@given(
    st.lists(
        st.sampled_from(["*", "@revoked", "mail.example.org", "ssh-ed25519", "|1|", "!", "AAAA", " ", "\t"]), max_size=8
    )
)
def test_no_sequence_of_fields_makes_a_key_trusted_that_is_not_there(fields: list[str]) -> None:
    assert check(about(" ".join(fields)), KEY) is HostKeyStatus.UNKNOWN


def test_files_that_are_missing_or_unreadable_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"\xff\xfe " + line("*").encode())
    files = [tmp_path / "missing", tmp_path, tmp_path / "there"]
    assert [file for file, _ in read(files)] == [tmp_path / "there"]


PLAIN = ["ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512"]
CERTIFIED = ["ssh-ed25519-cert-v01@openssh.com"]


@pytest.mark.parametrize(
    ("text", "wanted", "offered"),
    [
        ("", [*CERTIFIED, *PLAIN], PLAIN),
        (line("*", ECDSA), [*CERTIFIED, *PLAIN], ["ecdsa-sha2-nistp256", "ssh-ed25519", "rsa-sha2-512"]),
        (line("*", marker="@cert-authority"), [*PLAIN, *CERTIFIED], [*CERTIFIED, *PLAIN]),
        (line("*", ECDSA), ["ssh-ed25519", "rsa-sha2-512"], ["ssh-ed25519", "rsa-sha2-512"]),
        ("", [], []),
    ],
)
def test_algorithms_of_known_keys_are_offered_first_and_the_others_still(
    text: str, wanted: list[str], offered: list[str]
) -> None:
    assert algorithms(about(text), wanted) == offered


@pytest.mark.parametrize(
    ("status", "cause", "said", "step"),
    [
        (HostKeyStatus.UNKNOWN, Cause.HOST_KEY_UNKNOWN, KEY.get_fingerprint(), "mailrelay trust"),
        (HostKeyStatus.CHANGED, Cause.HOST_KEY_CHANGED, "known_hosts:2", "mailrelay trust"),
        (HostKeyStatus.REVOKED, Cause.HOST_KEY_REVOKED, "known_hosts:1", "@revoked"),
    ],
    ids=["unknown", "changed", "revoked"],
)
def test_each_verdict_says_what_is_offered_and_which_step_fixes_it(
    status: HostKeyStatus, cause: Cause, said: str, step: str
) -> None:
    text = line("*", THIRD, "@revoked") + line("[mail.example.org]:2222", OTHER)
    found = outcome(HostKey(status, KEY), about(text, port=2222), "mail")
    assert (found.stage, found.cause) == (Stage.HOST_KEY, cause)
    assert said in found.text and step in found.fix


NAME = "[mail.example.org]:2222"
SALT = b"s" * 20


@pytest.mark.parametrize(
    ("before", "after", "changed", "left"),
    [
        ("", "", [], []),
        ("# mine", "# mine\n", [], []),
        (line("other.example.org"), line("other.example.org"), [], []),
        (line(NAME), "", [1], []),
        (line(NAME) + line(NAME, ECDSA), "", [1, 2], []),
        (line(f"{NAME},192.0.2.1"), line("192.0.2.1"), [1], []),
        (line(f"a.example,{NAME.upper()},b.example"), line("a.example,b.example"), [1], []),
        (line("[*.example.org]:2222"), line("[*.example.org]:2222"), [], [1]),
        (line(f"{NAME},[*.example.org]:2222"), line("[*.example.org]:2222"), [1], [1]),
        (line("[*.example.org]:2222", OTHER), line("[*.example.org]:2222", OTHER), [], []),
        (line(NAME, marker="@revoked"), line(NAME, marker="@revoked"), [], []),
        (line(NAME, marker="@cert-authority"), line(NAME, marker="@cert-authority"), [], []),
        (line("mail.example.org"), line("mail.example.org"), [], []),
        (f"{NAME} ssh-ed25519 broken\n", f"{NAME} ssh-ed25519 broken\n", [], []),
        (line(HASHED), "", [1], []),
        ("# a\r\n" + line(NAME).replace("\n", "\r\n") + "# b\r\n", "# a\r\n# b\r\n", [2], []),
        ("\udcff\n" + line(NAME), "\udcff\n", [2], []),
    ],
)
def test_a_new_key_takes_the_place_of_those_of_this_very_name_alone(
    before: str, after: str, changed: list[int], left: list[int]
) -> None:
    assert with_key(before, NAME, OTHER) == (after + line(NAME, OTHER).rstrip() + "\n", changed, left)


def test_a_name_is_hashed_as_ssh_does() -> None:
    text, _, _ = with_key("", NAME, OTHER, salt=SALT)
    assert "mail" not in text
    assert check(about(text, port=2222), OTHER) is HostKeyStatus.TRUSTED
    assert check(about(text, port=2223), OTHER) is HostKeyStatus.UNKNOWN


@given(
    st.lists(
        st.builds(
            line,
            st.sampled_from(
                [NAME, "mail.example.org", f"a,{NAME}", "[*.example.org]:2222", f"!{NAME},*", HASHED, "# x"]
            ),
            st.sampled_from([KEY, THIRD, ECDSA]),
            st.sampled_from(["", "@revoked", "@cert-authority"]),
        ),
        max_size=6,
    )
)
def test_whatever_stood_there_the_new_key_is_trusted_then_and_no_other_line_is_touched(lines: list[str]) -> None:
    before = "".join(lines)
    after, changed, left = with_key(before, NAME, OTHER)
    assert check(about(after, port=2222), OTHER) is HostKeyStatus.TRUSTED
    mine = about(after, port=2222)
    stale = [entry.line for entry in mine.entries if entry.marker == "" and entry.key.public_data != OTHER.public_data]
    assert len(stale) == len(left)
    kept = [one for number, one in enumerate(before.split("\n"), start=1) if number not in changed]
    assert [one for one in kept if one not in after.split("\n")] == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (HostKey(HostKeyStatus.REVOKED, KEY), ""),
        (HostKey(HostKeyStatus.REVOKED, KEY, revoked_by=RevokedKeys(Path("/r"))), "/r (RevokedHostKeys)"),
        (
            HostKey(HostKeyStatus.REVOKED, KEY, revoked_by=RevokedKeys(Path("/r"), fault="is broken")),
            "/r (RevokedHostKeys), which is broken: so every key counts as revoked",
        ),
        (HostKey(HostKeyStatus.TOO_SHORT, KEY, size_detail="1024 bits"), "1024 bits"),
    ],
)
def test_a_refused_host_key_has_the_reason_that_is_not_a_line_of_known_hosts(key: HostKey, reason: str) -> None:
    assert key.reason == reason


def test_a_host_key_is_described_by_its_type_and_fingerprint_and_its_certificate_by_its_fault() -> None:
    shown = HostKey(HostKeyStatus.TRUSTED, KEY).description
    assert KEY.get_fingerprint() in shown and "certificate" not in shown
    authority = HostKey(HostKeyStatus.TRUSTED, KEY, authority=OTHER).description
    assert OTHER.get_fingerprint() in authority and KEY.get_fingerprint() not in authority
    faulty = HostKey(HostKeyStatus.TRUSTED, KEY, certificate_fault="has expired").description
    assert faulty == f"{shown} (its certificate has expired)"

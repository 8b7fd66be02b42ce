"""From the facts of a refused login to a sentence and a fix: the whole table, and the order in which causes count."""

import dataclasses
from pathlib import Path

import asyncssh
import pytest

from mailrelay.config import Relayhost
from mailrelay.ssh import certificate
from mailrelay.ssh.agent import AgentState
from mailrelay.ssh.hops import Hop, hops_of
from mailrelay.ssh.identities import Identity, Obstacle
from mailrelay.ssh.login_advice import identity_fix, no_common_algorithm, no_key_fix, refused
from mailrelay.ssh.progress import HopProgress

FILE = Path("/home/me/.ssh/client")
PAIR = asyncssh.load_keypairs([asyncssh.generate_private_key("ssh-ed25519")])[0]
GOOD = Identity(FILE, (PAIR,), frozenset({PAIR.public_data}))


def certified(valid_before: int) -> certificate.Certificate:
    key = asyncssh.generate_private_key("ssh-ed25519")
    made = key.generate_user_certificate(key, "id", principals=["me"], valid_before=valid_before)
    return certificate.parse(made.public_data)


CERTIFICATE, VALID = certified(1), certified(1 << 63)


def bad(obstacle: Obstacle) -> Identity:
    needs_an_agent = obstacle in (Obstacle.PUBLIC_HALF, Obstacle.PROTECTED, Obstacle.SECURITY_KEY)
    return Identity(FILE, (), frozenset(), obstacle=obstacle, fix="ssh-add mend it" if needs_an_agent else "mend it")


def hop(tmp_path: Path, *identities: Identity) -> Hop:
    config = tmp_path / "config"
    config.write_text("")
    [found] = hops_of(Relayhost(name="x", ssh="me@mail", ssh_config=config))
    return dataclasses.replace(found, identities=identities, agent="/run/agent")


PUBLICKEY = ("publickey",)
TRIED = [str(FILE)]
SILENT, ANSWERED, ABSENT = AgentState.SILENT, AgentState.ANSWERED, AgentState.ABSENT


@pytest.mark.parametrize(
    ("identities", "facts", "reason", "said", "fix"),
    [
        ([GOOD], {"methods": PUBLICKEY, "tried": TRIED}, "", "refused the login of me; tried: /home", "client.pub to"),
        ([GOOD], {}, "go away", "before it asked for a key: go away", "administrator"),
        ([GOOD], {"accepted": TRIED, "methods": ("password",)}, "", "but wants a password too", "Match User me"),
        ([GOOD], {"accepted": TRIED, "methods": ()}, "", "but wants another step too", "Match Address"),
        ([GOOD], {"accepted": TRIED, "methods": PUBLICKEY}, "", "but wants a second key too", "Give a second key"),
        (
            [GOOD],
            {"accepted": TRIED, "methods": ("keyboard-interactive", "password")},
            "Too many authentication failures",
            "or a password too",
            "AuthenticationMethods publickey",
        ),
        ([GOOD], {"methods": ("password",), "tried": TRIED}, "", "takes no key", "PubkeyAuthentication yes"),
        ([GOOD], {"methods": (), "tried": TRIED}, "", "something that mailrelay does not know", "PubkeyAuthentication"),
        (
            [GOOD],
            {"tried": TRIED, "offered": 6},
            "Too many authentication failures",
            "too many keys",
            "IdentitiesOnly yes",
        ),
        (
            [GOOD],
            {"tried": TRIED, "offered": 1},
            "Too many authentication failures",
            "refused the login of me (Too many",
            "authorized_keys",
        ),
        (
            [GOOD],
            {"tried": TRIED, "certificates": [("mine-cert.pub", VALID)]},
            "",
            "refused the login",
            "the authority of mine-cert.pub (TrustedUserCAKeys)",
        ),
        (
            [],
            {"unsigned": TRIED, "refused_by_agent": True, "agent": ANSWERED},
            "",
            "The agent refused to sign with /home",
            "unlock",
        ),
        (
            [],
            {"unsigned": TRIED, "agent": SILENT},
            "",
            "The agent at /run/agent does not answer",
            "start the agent again",
        ),
        ([], {"unsigned": TRIED}, "", "No signature could be made", "ssh-add /home"),
        ([], {"agent": SILENT, "tried": ["x"]}, "", "there is no key for me on me@mail", "Start the agent again"),
        (
            [GOOD],
            {"agent": SILENT, "tried": TRIED},
            "",
            "and me@mail refused the login of me with /home",
            "or add /home",
        ),
        ([GOOD], {"excluded": TRIED, "tried": TRIED}, "", "PubkeyAcceptedAlgorithms in ssh_config", "Add the type"),
        ([GOOD], {"skipped": TRIED, "tried": TRIED, "methods": PUBLICKEY}, "", "supports no signature", "+ssh-rsa"),
        (
            [GOOD],
            {"certificates": [("mine-cert.pub", CERTIFICATE)], "tried": TRIED},
            "",
            "The certificate mine-cert.pub expired on 1970-01-01 00:00 UTC",
            "Renew",
        ),
        (
            [GOOD],
            {"signatures": frozenset({"rsa-sha2-512"}), "tried": TRIED},
            "",
            "accepts only rsa-sha2-512, and the key is of the type ssh-ed25519",
            "allow ssh-ed25519 in sshd_config",
        ),
        (
            [GOOD],
            {"signatures": frozenset({"ssh-ed25519"}), "tried": TRIED},
            "",
            "refused the login",
            "authorized_keys",
        ),
        (
            [bad(Obstacle.PUBLIC_HALF)],
            {"agent": ABSENT},
            "",
            "is in no agent (no agent answers at /run/agent)",
            "Start an agent: ssh-agent -a /run/agent. SSH_AUTH_SOCK=/run/agent ssh-add mend it",
        ),
        ([bad(Obstacle.PUBLIC_HALF)], {"agent": ANSWERED}, "", "holds no keys, or is locked", "ssh-add -X"),
        ([bad(Obstacle.PUBLIC_HALF)], {"agent": ANSWERED, "agent_keys": 2}, "", "holds 2 other keys", "mend it"),
        ([bad(Obstacle.PROTECTED)], {}, "", "no agent runs", "SSH_AUTH_SOCK=/run/agent ssh-add mend it"),
        ([bad(Obstacle.NAMED_BY_PUBLIC_HALF)], {}, "", "names only its public half", "mend it; or load it"),
        ([GOOD], {"too_short": TRIED, "tried": TRIED}, "", "RequiredRSASize", "another type"),
        ([bad(Obstacle.OTHERS_CAN_READ)], {}, "", "refused the login", "mend it"),
        ([], {}, "", "nothing, because there is no key", "Make a key"),
        ([], {"agent": ANSWERED, "agent_keys": 3, "tried": ["3 keys"]}, "", "tried: 3 keys", "ssh-add -L"),
    ],
)
def test_each_cause_has_its_sentence_and_its_fix(
    tmp_path: Path, identities: list[Identity], facts: dict[str, object], reason: str, said: str, fix: str
) -> None:
    progress = HopProgress(**facts)  # type: ignore[arg-type]
    progress.unused = [one for one in identities if not one.pairs]
    found = refused(hop(tmp_path, *identities), progress, reason)
    assert said in found[0] and found[0].endswith(".") and ".." not in found[0]
    assert fix in found[1] and "; then try: ssh " in found[1]


def test_the_fix_for_a_key_of_an_agent_names_the_agent_that_ssh_config_names(tmp_path: Path) -> None:
    there, key = hop(tmp_path), bad(Obstacle.PROTECTED)
    assert (
        identity_fix(there, HopProgress(agent=ANSWERED, agent_keys=1), key)
        == "SSH_AUTH_SOCK=/run/agent ssh-add mend it"
    )
    none = identity_fix(dataclasses.replace(there, agent=""), HopProgress(), key)
    assert none.startswith(
        "Start an agent: ssh-agent -a ~/.ssh/agent. Name it in ssh_config: IdentityAgent ~/.ssh/agent."
    )
    assert none.endswith("SSH_AUTH_SOCK=~/.ssh/agent ssh-add mend it")
    excluded = dataclasses.replace(there, agent="", is_agent_excluded=True)
    assert "Remove IdentityAgent none" in identity_fix(excluded, HopProgress(), key)
    assert "IdentityAgent none" in refused(excluded, HopProgress(unused=[key]), "")[0]
    assert identity_fix(there, HopProgress(), bad(Obstacle.PUTTY)) == "mend it"


def test_without_a_usable_key_the_fix_is_that_of_the_first_file(tmp_path: Path) -> None:
    there = hop(tmp_path)
    assert no_key_fix(there, HopProgress()).startswith("Make a key")
    assert no_key_fix(there, HopProgress(agent=ABSENT)).endswith("; or start the agent at /run/agent")
    assert no_key_fix(there, HopProgress(agent=SILENT)).startswith("Start the agent again")
    assert no_key_fix(there, HopProgress(excluded=TRIED)).startswith("Add the type")
    assert no_key_fix(there, HopProgress(unused=[bad(Obstacle.PUTTY), bad(Obstacle.MISSING)])) == "mend it"


LISTS = [["kex"], ["key"], ["aes128-ctr"], ["aes128-ctr"], ["mac"], ["mac"]]
NAMES = ["key exchange", "host key algorithm", "cipher", "cipher", "MAC", "MAC"]


@pytest.mark.parametrize("position", range(6))
def test_the_list_without_a_common_algorithm_is_named(position: int) -> None:
    theirs = [["old", "older"] if at == position else names for at, names in enumerate(LISTS)]
    advice = no_common_algorithm(LISTS, theirs, [[]] * 6)
    assert advice is not None
    assert f"no {NAMES[position]} in common" in advice[0] and "it offers old, older;" in advice[0]
    assert LISTS[position][0] in advice[1] and "sshd_config" in advice[1]
    advice = no_common_algorithm(LISTS, theirs, [["older"]] * 6)
    assert advice is not None and "+older" in advice[1]


def test_lists_that_have_something_in_common_are_not_at_fault() -> None:
    assert no_common_algorithm(LISTS, LISTS, LISTS) is None
    assert no_common_algorithm(LISTS, (), LISTS) is None
    gcm = [names if at not in (2, 3) else ["aes128-gcm@openssh.com"] for at, names in enumerate(LISTS)]
    assert no_common_algorithm(gcm, [*gcm[:4], ["x"], ["x"]], LISTS) is None


def test_a_long_list_is_cut() -> None:
    theirs = [[f"kex{number}" for number in range(100)], *LISTS[1:]]
    advice = no_common_algorithm(LISTS, theirs, LISTS)
    assert advice is not None and "and 96 more" in advice[0] and len(advice[0]) < 200
    advice = no_common_algorithm(LISTS, [["x" * 10000], *LISTS[1:]], LISTS)
    assert advice is not None and len(advice[0]) < 200


@pytest.mark.parametrize(
    "facts", [{"excluded": ["ssh-rsa"]}, {"too_short": ["a (1024 bits)"]}, {"skipped": ["ssh-rsa"]}]
)
def test_a_key_that_was_not_offered_was_found_and_not_tried(tmp_path: Path, facts: dict[str, list[str]]) -> None:
    progress = HopProgress(tried=TRIED, **facts)  # type: ignore[arg-type]
    there = hop(tmp_path, GOOD)
    text, _ = refused(there, progress, "Permission denied")
    assert text.startswith(f"{there.place} refused the login of me (Permission denied); found: {FILE}; ")
    [[named]] = facts.values()
    assert named in text

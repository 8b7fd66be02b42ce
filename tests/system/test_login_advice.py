"""Why a login fails, as OpenSSH's sshd shows it: each cause has a sentence and a fix of its own, and none names a wrong one.

Each login is tried with ssh(1) too: it fails there where it fails here, and works there where it works here. An agent that
hangs is the exception: it hangs ssh(1) too.
"""

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from harness.login import Scene
from harness.login import at as at
from harness.processes import program
from harness.silent_agent import silent_agent
from harness.ssh_agent import agent
from harness.sshd import ALIAS, make_key

from mailrelay.mail.outcome import Cause, Outcome, Stage

pytestmark = pytest.mark.system


def says(outcome: Outcome, *words: str, fix: Sequence[str]) -> None:
    assert (outcome.stage, outcome.cause) == (Stage.AUTH, Cause.AUTH_REFUSED)
    assert [word for word in words if word not in outcome.text] == [], outcome.text
    assert [word for word in fix if word not in outcome.fix] == [], outcome.fix


PASSWORDS = {"PasswordAuthentication": "yes", "KbdInteractiveAuthentication": "yes"}


@pytest.mark.parametrize(
    ("methods", "wanted"),
    [
        ("publickey,password", "a password"),
        ("publickey,keyboard-interactive", "typed"),
        ("publickey,publickey", "a second key"),
    ],
)
async def test_a_second_factor_is_named_and_the_key_is_said_to_be_accepted(
    at: Scene, methods: str, wanted: str
) -> None:
    at.server(AuthenticationMethods=methods, UsePAM="yes", **PASSWORDS)
    outcome = await at.refused()
    says(
        outcome,
        "accepts the key",
        str(at.key),
        wanted,
        fix=[f"Match User {at.sshd.user}", "Match Address", "publickey"],
    )
    assert "authorized_keys" not in outcome.fix


async def test_a_second_key_that_we_have_is_the_second_factor(at: Scene) -> None:
    second = at.directory / "second"
    with (at.sshd.directory / "authorized_keys").open("a") as file:
        file.write(make_key(second) + "\n")
    at.server(AuthenticationMethods="publickey,publickey")
    at.client(identities=[at.key, second])
    await at.logs_in()


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"PubkeyAuthentication": "no", "UsePAM": "yes", **PASSWORDS}, "typed"),
        ({"AuthenticationMethods": "keyboard-interactive", "UsePAM": "yes", **PASSWORDS}, "typed"),
        ({"AuthenticationMethods": "password,publickey", **PASSWORDS}, "a password"),
    ],
    ids=["no keys", "PAM", "password first"],
)
async def test_a_server_that_takes_no_key_is_named_as_such(
    at: Scene, options: Mapping[str, str], wanted: str, has_key: bool
) -> None:
    at.server(**options)
    at.client(identities=[at.key] if has_key else [])
    outcome = await at.refused()
    says(outcome, "takes no key", wanted, fix=["PubkeyAuthentication yes"])
    assert "authorized_keys" not in outcome.fix


def sign(at: Scene, *options: str, kind: str = "ed25519") -> Path:
    """A certificate for a new key, which only the certificate lets in. Returns the key's file."""
    make_key(at.directory / "authority")
    key = at.directory / "new"
    keygen = program("ssh-keygen", "openssh-client")
    subprocess.run([keygen, "-q", "-t", kind, "-N", "", "-f", key], check=True)
    subprocess.run([keygen, "-q", "-s", at.directory / "authority", "-I", "x", *options, f"{key}.pub"], check=True)
    at.server(TrustedUserCAKeys=at.directory / "authority.pub")
    at.client(identities=[key])
    return key


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["-n", "{user}", "-V", "20200101:20210101"], "expired on 2021-01-01"),
        (["-n", "{user}", "-V", "20400101:20410101"], "is not valid before 2040-01-01"),
        (["-n", "somebody", "-V", "+1h"], "is for somebody, not for {user}"),
    ],
    ids=["expired", "not yet", "other principal"],
)
async def test_a_certificate_that_is_not_valid_is_named_with_its_validity(
    at: Scene, options: list[str], why: str
) -> None:
    user = at.sshd.user
    key = sign(at, *(option.format(user=user) for option in options))
    outcome = await at.refused()
    says(outcome, f"{key}-cert.pub", why.format(user=user), "valid from ", fix=["Renew the certificate", user])
    # The plain key is tried too, as in ssh(1).
    with (at.sshd.directory / "authorized_keys").open("a") as file:
        file.write(key.with_suffix(".pub").read_text())
    await at.logs_in()


@pytest.mark.parametrize("option", [[], ["-O", "force-command=true"], ["-O", "verify-required"]], ids=str)
async def test_a_certificate_that_is_valid_logs_in(at: Scene, option: list[str]) -> None:
    sign(at, "-n", at.sshd.user, "-V", "+1h", *option)
    await at.logs_in()


@pytest.mark.parametrize(
    ("options", "why", "fix"),
    [
        (["-h"], "is not a user certificate", "Get a user certificate"),
        (["-O", "critical:colour=blue"], "critical option that is not known here: colour", "Renew the certificate"),
        (["-O", "source-address=192.0.2.0/24"], "only for logins from 192.0.2.0/24", "Log in from such an address"),
    ],
    ids=["host", "critical option", "source address"],
)
async def test_a_certificate_that_is_not_meant_for_this_login_is_named(
    at: Scene, options: list[str], why: str, fix: str
) -> None:
    key = sign(at, "-n", at.sshd.user, "-V", "+1h", *options)
    says(await at.refused(), f"{key}-cert.pub", why, fix=[fix])


async def test_a_certificate_for_another_key_leaves_the_key_usable(at: Scene) -> None:
    key = sign(at, "-n", at.sshd.user, "-V", "+1h")
    Path(f"{at.key}-cert.pub").write_bytes(Path(f"{key}-cert.pub").read_bytes())
    at.client()
    await at.logs_in()
    at.client(f"CertificateFile {key}-cert.pub")
    await at.logs_in()
    # ssh(1) offers the key that the .pub names, and cannot sign with it.
    at.public.write_bytes(key.with_suffix(".pub").read_bytes())
    Path(f"{at.key}-cert.pub").unlink()
    at.client()
    await at.logs_in(with_ssh=False)


async def test_a_certificate_file_is_used_with_a_key_of_the_agent_that_ssh_config_does_not_name(at: Scene) -> None:
    key = sign(at, "-n", at.sshd.user, "-V", "+1h")
    certificate = Path(f"{key}-cert.pub").rename(at.directory / "certificate")
    at.client(f"IdentityAgent {at.socket}", f"CertificateFile {certificate}", "IdentitiesOnly no", identities=[])
    at.sshd.ssh_config.write_text(at.sshd.ssh_config.read_text().replace("IdentitiesOnly yes", "IdentityFile none"))
    async with agent(at.socket, key):
        await at.logs_in()


@pytest.mark.parametrize("where", ["client", "server"])
async def test_an_rsa_certificate_is_offered_under_the_name_that_both_sides_allow(at: Scene, where: str) -> None:
    only = {"PubkeyAcceptedAlgorithms": "rsa-sha2-256-cert-v01@openssh.com"}
    key = sign(at, "-n", at.sshd.user, "-V", "+1h", kind="rsa")
    at.server(TrustedUserCAKeys=at.directory / "authority.pub", **(only if where == "server" else {}))
    at.client(*(f"{name} {value}" for name, value in only.items()), identities=[key])
    await at.logs_in()


async def test_an_rsa_key_that_is_shorter_than_ssh_config_wants_is_not_offered(at: Scene) -> None:
    key = at.directory / "rsa"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", key], check=True)
    with (at.sshd.directory / "authorized_keys").open("a") as file:
        file.write(key.with_suffix(".pub").read_text())
    at.client("RequiredRSASize 3072", identities=[key])
    says(await at.refused(), "RequiredRSASize 3072", str(key), fix=["another type", "RequiredRSASize"])
    at.client("RequiredRSASize 2048", identities=[key])
    await at.logs_in()


async def test_a_type_of_key_that_the_server_does_not_accept_is_not_missed_in_authorized_keys_only(at: Scene) -> None:
    at.server(PubkeyAcceptedAlgorithms="rsa-sha2-512")
    outcome = await at.refused()
    assert outcome.cause is Cause.AUTH_REFUSED
    assert "log of the SSH server" in outcome.fix or "PubkeyAcceptedAlgorithms" in outcome.fix


async def test_a_type_of_key_that_ssh_config_excludes_is_not_offered(at: Scene) -> None:
    at.client("PubkeyAcceptedAlgorithms rsa-sha2-512")
    outcome = await at.refused()
    says(outcome, str(at.key), "PubkeyAcceptedAlgorithms in ssh_config", fix=["PubkeyAcceptedAlgorithms"])
    at.client("PubkeyAcceptedAlgorithms rsa-sha2-512,ssh-ed25519")
    await at.logs_in()


async def test_a_certificate_that_an_agent_holds_is_used_and_named(at: Scene) -> None:
    """The agent of step-ca, Vault and the like: ssh-add adds the certificate beside the key."""
    key = sign(at, "-n", at.sshd.user, "-V", "+1h")
    at.client(f"IdentityAgent {at.socket}", identities=[at.directory / "certificate"])
    (at.directory / "certificate").write_bytes(Path(f"{key}-cert.pub").read_bytes())
    async with agent(at.socket, key):
        await at.logs_in()


async def test_keys_that_ssh_config_switches_off_are_named(at: Scene) -> None:
    at.client("PubkeyAuthentication no")
    says(await at.refused(), "PubkeyAuthentication no", fix=["Remove"])


@pytest.mark.parametrize("named", ["public half", "private half"])
async def test_a_private_half_in_no_agent_is_named_as_missing(at: Scene, named: str) -> None:
    at.public.chmod(0o644)
    at.key.rename(at.directory / "elsewhere")
    file = at.public if named == "public half" else at.key
    at.client(f"IdentityAgent {at.socket}", identities=[file])
    words = f"The private key of {file} is in no agent"
    load = f"SSH_AUTH_SOCK={at.socket} ssh-add FILE"
    start = f"ssh-agent -a {at.socket}"
    says(await at.refused(), words, f"no agent answers at {at.socket}", fix=[start, load])
    make_key(at.directory / "other")
    async with agent(at.socket, at.directory / "other"):
        outcome = await at.refused()
    says(outcome, words, "holds 1 other keys", fix=[load])
    assert "chmod" not in outcome.fix and "Start" not in outcome.fix
    at.client("IdentityAgent none", identities=[file])
    says(await at.refused(), words, "IdentityAgent none", fix=["Remove IdentityAgent none", "ssh-add FILE"])


async def test_a_public_half_with_its_private_half_beside_it_is_named_with_that(at: Scene) -> None:
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    at.public.chmod(0o644)
    said = [
        f"The private key of {at.public} is in no agent",
        f"no agent answers at {at.socket}",
        "only its public half",
    ]
    fix = [
        f"Name the private key as IdentityFile in ssh_config: {at.key}",
        f"SSH_AUTH_SOCK={at.socket} ssh-add {at.key}",
    ]
    says(await at.refused(), *said, fix=fix)
    at.client(identities=[at.key])
    await at.logs_in()


@pytest.mark.parametrize("names", ["a socket", "nothing"])
async def test_the_commands_of_the_fix_bring_a_protected_key_into_the_agent_that_is_used(
    at: Scene, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Followed to the letter, in a terminal that has another agent. ssh(1) does not follow $HOME to ~/.ssh/agent."""
    encrypt(at)
    monkeypatch.setenv("SSH_ASKPASS", str(askpass := at.directory / "askpass"))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    (at.directory / ".ssh").mkdir()
    at.client(f"IdentityAgent {at.socket}" if names == "a socket" else "IdentityAgent SSH_AUTH_SOCK")
    fix = (await at.refused()).fix
    commands = re.findall(r"ssh-agent -a \S+|SSH_AUTH_SOCK=\S+ ssh-add [^.;]*", fix.replace(". ", " ; "))
    socket = re.findall(r"ssh-agent -a (\S+)", fix.replace(". ", " ; "))[0].replace("~", str(at.directory))
    assert len(commands) == 2, fix
    async with another_agent(at):
        started = await asyncio.create_subprocess_shell(
            f"exec {commands[0]} -D", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert started.stdout is not None and await started.stdout.readline()
        try:
            added = await asyncio.create_subprocess_shell(commands[1])
            assert await added.wait() == 0
            at.client(f"IdentityAgent {socket}")
            await at.logs_in()
        finally:
            started.terminate()
            await started.wait()


@asynccontextmanager
async def another_agent(at: Scene) -> AsyncIterator[None]:
    """An agent in SSH_AUTH_SOCK, which is not the one of ssh_config."""
    socket = at.directory / "another"
    with pytest.MonkeyPatch.context() as patch:
        async with agent(socket):
            patch.setenv("SSH_AUTH_SOCK", str(socket))
            yield


async def test_a_locked_agent_is_named_with_the_command_that_unlocks_it(at: Scene) -> None:
    at.key.rename(at.directory / "elsewhere")
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    async with agent(at.socket, at.directory / "elsewhere"), asyncssh.connect_agent(str(at.socket)) as client:
        await at.logs_in()
        await client.lock("secret")
        says(await at.refused(), "is locked", fix=[f"SSH_AUTH_SOCK={at.socket} ssh-add -X"])
        await client.unlock("secret")
        await at.logs_in()


async def test_an_agent_that_refuses_to_sign_is_named(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    at.public.chmod(0o644)
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    async with agent(at.socket, at.key, confirm=True):
        outcome = await at.refused()
        says(outcome, "The agent refused to sign with", str(at.public), fix=["Confirm", "unlock"])
        assert "chmod" not in outcome.fix and "authorized_keys" not in outcome.fix
        found = await at.checked()
        assert ("login", False, outcome.text, outcome.fix) in found


@pytest.mark.parametrize("answers", [0, 1], ids=["at listing", "at signing"])
async def test_an_agent_that_hangs_does_not_keep_the_key_file_from_logging_in(at: Scene, answers: int) -> None:
    first = at.directory / "first"
    with (at.sshd.directory / "authorized_keys").open("a") as file:
        file.write(make_key(first) + "\n")
    at.client(f"IdentityAgent {at.socket}", identities=[first.with_suffix(".pub"), at.key])
    async with silent_agent(at.socket, first.with_suffix(".pub"), answers=answers) as silent, asyncio.timeout(15):
        await at.logs_in(with_ssh=False)
        assert silent.connections == 1
    # Where each named key is in a file, the agent is not asked.
    at.client(f"IdentityAgent {at.socket}")
    async with silent_agent(at.socket) as silent:
        await at.logs_in(with_ssh=False)
        assert silent.connections == 0


async def test_an_agent_that_hangs_is_named_as_a_fault_of_the_setup(at: Scene) -> None:
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    async with silent_agent(at.socket) as silent, asyncio.timeout(15):
        outcome = await at.refused(with_ssh=False)
        says(
            outcome, f"The agent at {at.socket} accepts connections and does not answer", fix=["Start the agent again"]
        )
        assert silent.connections == 1


@pytest.mark.parametrize("answers", [0, 1], ids=["at listing", "at signing"])
async def test_an_agent_that_hangs_costs_its_time_once_for_all_hops(at: Scene, answers: int) -> None:
    first = at.directory / "first"
    with (at.sshd.directory / "authorized_keys").open("a") as file:
        file.write(make_key(first) + "\n")
    at.client(f"IdentityAgent {at.socket}", "ProxyJump hop", identities=[first.with_suffix(".pub"), at.key])
    text = at.sshd.ssh_config.read_text()
    with at.sshd.ssh_config.open("a") as file:
        file.write(text.replace(f"Host {ALIAS}", "Host hop").replace("ProxyJump hop", ""))
    async with silent_agent(at.socket, first.with_suffix(".pub"), answers=answers) as silent, asyncio.timeout(15):
        await at.logs_in(with_ssh=False)
        assert silent.connections == 1


async def test_an_agent_that_never_signs_is_named(at: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailrelay.ssh.agent.CONFIRM_TIMEOUT", 1.0)
    at.client(f"IdentityAgent {at.socket}", identities=[at.public])
    async with silent_agent(at.socket, at.public, answers=1) as silent, asyncio.timeout(15):
        outcome = await at.refused(with_ssh=False)
        says(outcome, f"The agent at {at.socket} does not answer", str(at.public), fix=["Confirm", "start the agent"])
        assert silent.requests == 2


async def test_too_many_keys_of_an_agent_are_named_with_identities_only(at: Scene) -> None:
    keys = [at.directory / f"key{number}" for number in range(8)]
    for key in keys:
        make_key(key)
    at.client(f"IdentityAgent {at.socket}", "IdentitiesOnly no", identities=[])
    at.sshd.ssh_config.write_text(at.sshd.ssh_config.read_text().replace("IdentitiesOnly yes", ""))
    async with agent(at.socket, *keys):
        says(
            await at.refused(), "too many keys", "8 more keys of the agent", fix=["IdentitiesOnly yes", "IdentityFile"]
        )


def puttys(at: Scene) -> None:
    at.key.write_text("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n")


def encrypt(at: Scene) -> None:
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", at.key], capture_output=True, check=True)


def certify(at: Scene) -> None:
    make_key(at.directory / "authority")
    subprocess.run(["ssh-keygen", "-q", "-s", at.directory / "authority", "-I", "x", at.public], check=True)
    (at.sshd.directory / "client-cert.pub").rename(at.key)
    at.key.chmod(0o600)


def spoil(at: Scene) -> None:
    at.key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        (encrypt, "needs a passphrase", "ssh-add {key}"),
        (lambda at: at.key.chmod(0o644), "other users can read it", "chmod 600 {key}"),
        (puttys, "PuTTY", "puttygen {key} -O private-openssh"),
        (spoil, "is not a private key", "ssh-keygen -y -f {key}"),
        (lambda at: (at.key.unlink(), at.public.unlink()), "does not exist", "IdentityFile"),
        (certify, "is a certificate", "{key} as CertificateFile"),
    ],
    ids=["passphrase", "mode", "putty", "broken", "missing", "certificate"],
)
async def test_a_key_file_that_cannot_be_used_is_named_with_its_own_fix(
    at: Scene, change: Callable[[Scene], object], said: str, fix: str
) -> None:
    change(at)
    says(await at.refused(), f"{at.key} (", said, fix=[fix.format(key=at.key)])


async def test_a_server_that_ends_the_login_after_one_key_does_not_know_it(at: Scene) -> None:
    (at.sshd.directory / "authorized_keys").write_text("")
    at.server(MaxAuthTries="1")
    says(await at.refused(), str(at.key), fix=[f"Add {at.public} to ~/.ssh/authorized_keys"])


async def test_a_certificate_of_an_authority_that_the_server_does_not_trust_is_named(at: Scene) -> None:
    key = sign(at, "-n", at.sshd.user, "-V", "+1h")
    at.server()
    says(await at.refused(), str(key), fix=[f"trust the authority of {key}-cert.pub (TrustedUserCAKeys)"])


async def test_a_key_that_is_not_there_is_still_added_to_authorized_keys(at: Scene) -> None:
    (at.sshd.directory / "authorized_keys").write_text("")
    says(await at.refused(), str(at.key), fix=[f"Add {at.public} to ~/.ssh/authorized_keys"])


@pytest.mark.parametrize(
    ("options", "kind", "directive"),
    [
        (
            {"KexAlgorithms": "diffie-hellman-group14-sha1"},
            "key exchange",
            "KexAlgorithms +diffie-hellman-group14-sha1",
        ),
        ({"Ciphers": "aes128-cbc"}, "cipher", "Ciphers +aes128-cbc"),
        ({"Ciphers": "aes128-ctr", "MACs": "hmac-md5"}, "MAC", "MACs +hmac-md5"),
    ],
    ids=["kex", "cipher", "mac"],
)
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
async def test_no_common_algorithm_names_both_lists_and_the_directive(
    at: Scene, options: Mapping[str, str], kind: str, directive: str
) -> None:
    at.server(**options)
    outcome = await at.refused()
    assert (outcome.stage, outcome.cause) == (Stage.DIAL, Cause.SSH_REFUSED)
    assert f"no {kind} in common" in outcome.text and list(options.values())[-1] in outcome.text
    assert directive in outcome.fix and len(outcome.text) < 400
    at.client(directive, *(["Ciphers aes128-ctr"] if kind == "MAC" else []))
    await at.logs_in()


async def test_no_common_type_of_host_key_names_both_lists(at: Scene) -> None:
    at.client("HostKeyAlgorithms rsa-sha2-512")
    outcome = await at.refused()
    assert "no host key algorithm in common" in outcome.text and "it offers ssh-ed25519" in outcome.text
    assert "HostKeyAlgorithms +ssh-ed25519" in outcome.fix

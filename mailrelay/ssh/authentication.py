"""The login to one hop: the keys that we offer, and the check of the host key. asyncssh calls a `HopClient` for both."""

import copy
from collections.abc import Iterator

import asyncssh

from mailrelay.ssh import known_hosts
from mailrelay.ssh.asyncssh_patches import skip_methods_query
from mailrelay.ssh.errors import HopProgress
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.known_hosts import HostKeyStatus


class HopClient(asyncssh.SSHClient):
    """Answers asyncssh's questions during a login. progress: how far the login came, also after it failed."""

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self.progress = HopProgress()
        self._agent: asyncssh.SSHAgentClient | None = None
        self._connection: asyncssh.SSHClientConnection
        self._keys_were_requested = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        self.progress.is_connected = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.progress.has_greeted = self._connection.get_extra_info("server_version") is not None
        self.close_agent()

    def begin_auth(self, username: str) -> None:
        skip_methods_query(self._connection)

    def auth_completed(self) -> None:
        self.close_agent()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self.accepts(key, is_authority=False)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return self.accepts(key, is_authority=True)

    def accepts(self, key: asyncssh.SSHKey, *, is_authority: bool) -> bool:
        """Whether the login goes on with this host key, or with a host certificate signed by this authority."""
        self.progress.host_key = key
        self.progress.host_key_status = known_hosts.check(self.hop.known, key, is_authority=is_authority)
        return self.progress.host_key_status is HostKeyStatus.TRUSTED

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """All keys at the first call, the most likely first: many servers end the connection after about six."""
        if self._keys_were_requested:
            return None
        self._keys_were_requested = True
        configured = frozenset().union(*(identity.public for identity in self.hop.identities))
        agent_keys = await self._agent_keys()
        certificates = [cert for identity in self.hop.identities for cert in identity.certificates]
        chosen = [
            each
            for key in agent_keys
            if key.public_data in configured
            for each in (*_certified(key, certificates), key)
        ]
        in_agent = {key.public_data for key in agent_keys}
        for identity in self.hop.identities:
            note = "in the agent" if identity.public & in_agent else identity.note
            self.progress.tried.append(f"{identity.file} ({note})" if note else str(identity.file))
            chosen += [pair for pair in identity.pairs if pair.public_data not in in_agent]
        if not self.hop.identities_only:
            others = [key for key in agent_keys if key.public_data not in configured]
            if others:
                self.progress.tried.append(f"{len(others)} more keys of the agent")
            chosen += others
        return chosen or None

    async def _agent_keys(self) -> list[asyncssh.SSHKeyPair]:
        if not self.hop.agent:
            return []
        try:
            self._agent = await asyncssh.connect_agent(self.hop.agent)
            return list(await self._agent.get_keys())
        except (OSError, ValueError):
            self.progress.tried.append(f"the agent at {self.hop.agent} (does not answer)")
            return []

    def close_agent(self) -> None:
        """Closes the connection to the agent, if there is one."""
        if self._agent is not None:
            self._agent.close()


def _certified(key: asyncssh.SSHKeyPair, certificates: list[asyncssh.SSHCertificate]) -> Iterator[asyncssh.SSHKeyPair]:
    """An agent's key with each certificate that was issued for it."""
    for certificate in certificates:
        if certificate.key.public_data == key.public_data:
            certified = copy.copy(key)
            certified.set_certificate(certificate)
            yield certified

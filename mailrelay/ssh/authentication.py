"""The login to one hop: the keys that we offer, and the check of the host key. asyncssh calls a `HopClient` for both."""

import contextlib
import time
from collections.abc import Sequence

import asyncssh

from mailrelay.ssh import asyncssh_patches, certificate, known_hosts
from mailrelay.ssh.agent import Agent, AgentState
from mailrelay.ssh.asyncssh_patches import LoginObserver, signs_at_no_cost
from mailrelay.ssh.flood import FloodGuard
from mailrelay.ssh.hops import Hop
from mailrelay.ssh.identities import certified
from mailrelay.ssh.known_hosts import HostKeyStatus
from mailrelay.ssh.progress import HopProgress

MAX_BANNER = 2000
"""Characters of the server's banner that are kept."""


class HopClient(asyncssh.SSHClient, LoginObserver):
    """The methods that asyncssh calls during a login. progress: how far the login came, also after it failed."""

    def __init__(self, hop: Hop) -> None:
        self.hop = hop
        self.progress = HopProgress()
        self._guard = FloodGuard()
        self._agent: Agent | None = None
        self._connection: asyncssh.SSHClientConnection
        # Each round returns keys to offer; the next one is called when the server has refused them.
        self._rounds = [self._keys_of_files, self._keys_of_agent, self._keys_not_signed_yet]
        self._offered: dict[bytes, asyncssh.SSHKeyPair] = {}
        self._answered: set[bytes] = set()

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn
        self.progress.is_connected = True
        asyncssh_patches.judge_host_key(conn, self.judge_host_key)
        asyncssh_patches.bound_received(conn, self._guard)

    def connection_lost(self, exc: Exception | None) -> None:
        self.progress.has_greeted = self._connection.get_extra_info("server_version") is not None
        if not (self.progress.has_greeted or self.hop.proxy or self._guard.first_data.startswith(b"SSH-")):
            self.progress.first_data = self._guard.first_data
        self.progress.server_algorithms = asyncssh_patches.server_algorithms(self._connection)
        self._describe_login()
        self.close_agent()

    def begin_auth(self, username: str) -> None:
        asyncssh_patches.skip_methods_query(self._connection)

    def auth_banner_received(self, msg: str, lang: str) -> None:
        self.progress.banner = (self.progress.banner + msg)[-MAX_BANNER:]

    def auth_completed(self) -> None:
        self._guard.logged_in()
        self.close_agent()

    def judge_host_key(self, blob: bytes) -> asyncssh.SSHKey:
        """The host's own key, if it is trusted. blob: the host key or host certificate that the host offers. Raises
        asyncssh.HostKeyNotVerifiable."""
        offered = known_hosts.judge(self.hop.known, blob, time.time(), self.hop.policy)
        self.progress.host_key = offered
        if offered.plain is None or offered.status is not HostKeyStatus.TRUSTED:
            raise asyncssh.HostKeyNotVerifiable(f"the host key is {offered.status}")
        return offered.plain

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """The next keys to try, the most likely first: many servers end the connection after about six keys. None if there
        are no more."""
        while self._rounds:
            pairs = await self._rounds.pop(0)()
            allowed = [pair for pair in pairs if self._is_allowed(pair)]
            if self.progress.is_connected:
                for pair in allowed:
                    asyncssh_patches.name_rsa_certificate(self._connection, pair, self.hop.key_algorithms)
            self._offered |= {pair.public_data: pair for pair in allowed}
            self.progress.offered = len(self._offered)
            if allowed:
                return allowed
        return None

    def login_refused(self, methods: Sequence[str], key: asyncssh.SSHKeyPair | None, *, partial: bool) -> None:
        self.progress.methods = tuple(methods)
        if key is not None:
            self._answered.add(key.public_data)
            if partial:
                self.progress.accepted.append(self._name(key))

    def key_not_signed(self, key: asyncssh.SSHKeyPair) -> None:
        self._answered.add(key.public_data)
        if self._name(key) not in self.progress.unsigned:
            self.progress.unsigned.append(self._name(key))

    def close_agent(self) -> None:
        """Closes the connection to the agent, if there is one."""
        if self._agent is not None:
            if self._agent.state is AgentState.SILENT:
                self.hop.silent_agents.add(self.hop.agent)
            self._agent.close()

    @property
    def _needs_no_agent(self) -> bool:
        """Whether there are key files, and each of them can be used by itself. Then the agent, which may hang, is not asked
        before they have been tried."""
        return bool(self.hop.identities) and all(one.pairs for one in self.hop.identities)

    async def _keys_of_files(self) -> list[asyncssh.SSHKeyPair]:
        if not self._needs_no_agent:
            return []
        self.progress.tried += [str(one.file) for one in self.hop.identities]
        return [pair for one in self.hop.identities for pair in one.pairs]

    async def _keys_of_agent(self) -> list[asyncssh.SSHKeyPair]:
        if not self._needs_no_agent:
            chosen = self._with_agent(await self._agent_keys())
        elif self.hop.identities_only:
            return []
        else:
            chosen = self._others(
                await self._agent_keys(), frozenset().union(*(one.public for one in self.hop.identities))
            )
        if self._agent is not None:
            # The agent gets the long timeout only for keys after the last key file: while key files are left to try, they
            # are not delayed by a confirmation.
            last_file = max((at for at, pair in enumerate(chosen) if signs_at_no_cost(pair)), default=-1)
            self._agent.long_wait = {pair.key_public_data for pair in chosen[last_file + 1 :]}
        return chosen

    async def _keys_not_signed_yet(self) -> list[asyncssh.SSHKeyPair]:
        if self._agent is None:
            return []
        self._agent.long_wait = pending = self._agent.pending
        return [pair for pair in self._offered.values() if pair.key_public_data in pending]

    def _with_agent(self, agent_keys: list[asyncssh.SSHKeyPair]) -> list[asyncssh.SSHKeyPair]:
        """The keys to offer: those of ssh_config first, and of these first the ones that the agent has, as in ssh(1)."""
        identities = self.hop.identities
        configured = frozenset().union(*(one.public for one in identities))
        certificates = [cert for one in identities for _, cert in one.certificates]
        local = {pair.key_public_data for one in identities for pair in one.pairs}
        in_agent = {key.public_data for key in agent_keys}
        chosen: list[asyncssh.SSHKeyPair] = []
        for key in agent_keys:
            if key.public_data in local:
                # With the key file, a signature needs no confirmation.
                chosen += [pair for one in identities for pair in one.pairs if pair.key_public_data == key.public_data]
            elif key.public_data in configured:
                chosen += [*certified(key, certificates), key]
        for one in identities:
            is_in_agent = not one.pairs and bool(one.public & in_agent)
            if not one.pairs and not is_in_agent:
                self.progress.unused.append(one)
            note = "in the agent" if is_in_agent else one.note
            self.progress.tried.append(f"{one.file} ({note})" if note else str(one.file))
            chosen += [pair for pair in one.pairs if pair.key_public_data not in in_agent]
        return chosen if self.hop.identities_only else chosen + self._others(agent_keys, configured)

    def _others(self, agent_keys: list[asyncssh.SSHKeyPair], configured: frozenset[bytes]) -> list[asyncssh.SSHKeyPair]:
        others = [key for key in agent_keys if key.public_data not in configured]
        if others:
            self.progress.tried.append(f"{len(others)} more keys of the agent")
        certificates = [cert for _, cert in self.hop.certificates]
        return [pair for key in others for pair in (*certified(key, certificates), key)]

    async def _agent_keys(self) -> list[asyncssh.SSHKeyPair]:
        path = self.hop.agent
        if not path:
            return []
        if path in self.hop.silent_agents:
            self.progress.agent, keys = AgentState.SILENT, []
        else:
            self._agent = Agent(path)
            keys = await self._agent.keys()
            self.progress.agent, self.progress.agent_keys = self._agent.state, len(keys)
        if self.progress.agent is not AgentState.ANSWERED:
            self.progress.tried.append(f"the agent at {path} ({self.progress.agent.value})")
        return keys

    def _is_allowed(self, pair: asyncssh.SSHKeyPair) -> bool:
        """Whether RequiredRSASize and PubkeyAcceptedAlgorithms of ssh_config allow a key. If not, adds it to `progress`."""
        bits = certificate.rsa_bits(pair.key_public_data)
        if bits and bits < self.hop.policy.rsa_size:
            if self._name(pair) not in self.progress.too_short:
                self.progress.too_short.append(self._name(pair))
            return False
        accepted = self.hop.key_algorithms
        names = [name.decode("ascii") for name in pair.sig_algorithms]
        if pair.has_cert:
            names = [f"{name.removesuffix('@openssh.com')}-cert-v01@openssh.com" for name in names]
        if accepted is None or not accepted.isdisjoint(names):
            return True
        if self._name(pair) not in self.progress.excluded:
            self.progress.excluded.append(self._name(pair))
        return False

    def _describe_login(self) -> None:
        """Adds to `progress` what is known at the end of the login."""
        progress = self.progress
        progress.signatures = asyncssh_patches.server_signature_algorithms(self._connection)
        if progress.methods is not None:
            progress.skipped = [
                self._name(pair) for public, pair in self._offered.items() if public not in self._answered
            ]
        named = [*self.hop.certificates, *(each for one in self.hop.identities for each in one.certificates)]
        files = {cert.public_data: str(file) for file, cert in named}
        for public, pair in self._offered.items():
            if pair.has_cert:
                with contextlib.suppress(ValueError):
                    progress.certificates.append((files.get(public) or self._name(pair), certificate.parse(public)))
        if self._agent is not None and progress.unsigned:
            progress.refused_by_agent = bool(self._agent.refused)
            progress.agent = self._agent.state

    def _name(self, pair: asyncssh.SSHKeyPair) -> str:
        """A key in texts for the person: its file, or its comment in the agent."""
        data = pair.key_public_data
        files = [str(one.file) for one in self.hop.identities if data in one.public]
        return files[0] if files else pair.get_comment(errors="replace") or pair.get_algorithm()

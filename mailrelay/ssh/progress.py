"""How far the login to one hop came: the facts from which `errors` and `login_advice` make a sentence and a fix."""

from dataclasses import dataclass, field

from mailrelay.ssh.agent import AgentState
from mailrelay.ssh.certificate import Certificate
from mailrelay.ssh.identities import Identity
from mailrelay.ssh.known_hosts import HostKey, HostKeyStatus


@dataclass(slots=True)
class HopProgress:
    """How far the login to one hop came. is_connected: a byte stream to the server existed. has_greeted: the server sent its
    SSH version. first_data: the first octets from a server that does not speak SSH. server_algorithms: as in
    `asyncssh_patches`. host_key: what the server offered; None if it has offered nothing.

    tried: the keys and agents that were tried, as text for people. unused: key files of which no key could be used.
    certificates: those that were offered, each with its file or its comment in the agent. excluded: keys that
    PubkeyAcceptedAlgorithms of ssh_config excludes. too_short: keys that its RequiredRSASize excludes. skipped: keys for
    which the server supports no signature that we allow. signatures: the algorithms of signatures that the server accepts,
    empty if it has not said.

    methods: the authentication methods that the server still offers, None if it has not refused a request. offered: the
    number of keys that could be offered. accepted: keys that the server accepted as one of several steps. unsigned: keys
    that it accepts and with which no signature could be made. refused_by_agent: the agent refused to sign with one of
    these. agent: what is known of the agent. agent_keys: the number of its keys.

    banner: what the server sent for people to read. proxy_status, proxy_stderr: exit status of the ProxyCommand, None if it
    has not ended, and the end of its stderr.
    """

    is_connected: bool = False
    has_greeted: bool = False
    first_data: bytes = b""
    server_algorithms: tuple[tuple[str, ...], ...] = ()
    host_key: HostKey | None = None
    tried: list[str] = field(default_factory=list)
    unused: list[Identity] = field(default_factory=list)
    certificates: list[tuple[str, Certificate]] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    too_short: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    signatures: frozenset[str] = frozenset()
    methods: tuple[str, ...] | None = None
    offered: int = 0
    accepted: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)
    agent: AgentState = AgentState.NOT_ASKED
    agent_keys: int = 0
    refused_by_agent: bool = False
    banner: str = ""
    proxy_status: int | None = None
    proxy_stderr: bytes = b""

    @property
    def is_key_unknown(self) -> bool:
        """Whether the server may have refused the keys only because it does not know them."""
        takes_keys = self.methods is None or "publickey" in self.methods
        return takes_keys and not (self.accepted or self.unsigned or self.excluded or self.too_short or self.skipped)

    @property
    def is_trusted(self) -> bool:
        """Whether the host key was accepted."""
        return self.host_key is not None and self.host_key.status is HostKeyStatus.TRUSTED

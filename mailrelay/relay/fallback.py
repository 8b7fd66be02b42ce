"""Which relayhosts send the mail of one that cannot be reached (setting `fallback`).

    candidates(...)  pure: the fallbacks that may send its mail now
    Group            the schedulers of all relayhosts

A relayhost cannot be reached while it has a fault that was found before MAIL: a dial that failed, whatever the reason
(network, host key, login), no mail path, a mail server that does not answer, or one that takes no mail for now (greeting,
EHLO). A mail server that refuses mailrelay itself (`mail.setup_reply`), a message, or every message has been reached: its
mail waits for it (REACHED).

Fallbacks are used in the order of the setting: the second one sends only while the first one cannot be reached either. If
none can be reached, each of them dials by its own schedule, and the first one that is reached sends the mail. Fallbacks of
fallbacks are not used, so two relayhosts may be fallbacks of each other.

Promises: nothing is sent twice. The spool decides which relayhost sends a message when the message is taken for an attempt,
and no other relayhost takes a message that an earlier attempt may have delivered (`RelayPort.take`). The relayhosts that
cannot be reached go on dialling, also without mail, so that the order is restored as soon as it can be.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from mailrelay.config import Relayhost
from mailrelay.mail.outcome import SETUP_REPLIES, Cause
from mailrelay.ports import RelayhostFailure
from mailrelay.relay.waiters import Queued, Waiter, Waiters

REACHED = SETUP_REPLIES | {Cause.TURNED_AWAY}
"""Causes of faults of a mail server that was reached. Their reply may have come to MAIL or later."""


def is_unreachable(fault: RelayhostFailure | None) -> bool:
    """Whether a relayhost with this known fault cannot be reached."""
    return fault is not None and fault.cause not in REACHED


def candidates(name: str, fallback: Sequence[str], is_unreachable: Callable[[str], bool]) -> list[str]:
    """The fallbacks that may send the mail of the relayhost `name` now: none while it can be reached, else those of
    `fallback` up to the first one that can be reached, or all if none can."""
    found: list[str] = []
    if is_unreachable(name):
        for one in fallback:
            found.append(one)
            if not is_unreachable(one):
                break
    return found


class Member(Protocol):
    """What a scheduler needs of the others."""

    @property
    def relayhost(self) -> Relayhost: ...
    @property
    def is_unreachable(self) -> bool: ...
    @property
    def waiters(self) -> Waiters: ...
    @property
    def fault_text(self) -> str: ...


M = TypeVar("M", bound=Member)


@dataclass(slots=True)
class Group(Generic[M]):
    """The schedulers of all relayhosts. members: by name, without schedulers that end because the settings were changed.
    waiters: the clients that wait, by queue id."""

    members: dict[str, M] = field(default_factory=dict)
    waiters: dict[str, Waiter] = field(default_factory=dict)

    def candidates(self, name: str) -> list[M]:
        """The members that may send the mail of `name` now, besides itself, in order."""
        if name not in self.members:
            return []
        fallback = self.members[name].relayhost.fallback
        return [self.members[one] for one in candidates(name, fallback, self._is_unreachable) if one in self.members]

    def carrier(self, name: str) -> M:
        """The member that sends the mail of `name` now: its stand-in, or itself if it can be reached or no fallback can."""
        found = self.candidates(name)
        return found[-1] if found and not found[-1].is_unreachable else self.members[name]

    def first_reachable(self, fallback: Sequence[str]) -> str:
        """The first of these relayhosts that can be reached; "" for none."""
        return next((one for one in fallback if not self._is_unreachable(one)), "")

    def replaced_by(self, name: str) -> list[str]:
        """The relayhosts in whose place `name` may send now, as a fallback."""
        return [
            other.relayhost.name
            for other in self.members.values()
            if name in candidates(other.relayhost.name, other.relayhost.fallback, self._is_unreachable)
        ]

    def is_replaced(self, name: str) -> bool:
        """Whether a dial of `name`, which cannot be reached, may change which relayhost sends: it has a fallback that may
        send, or is one."""
        return bool(self.candidates(name) or self.replaced_by(name))

    def tell_blocked(self, name: str, waiters: Waiters, why: str) -> None:
        """The relayhost `name` sends nothing now. Clients that wait at it go on waiting if another relayhost sends their
        message; all others get the reply that it is queued, and why. waiters: of its scheduler."""
        for queue_id in waiters.queue_ids:
            home = waiters.home(queue_id)
            home = home if home in self.members else name
            carrier = self.carrier(home) if home in self.members else None
            if carrier is None or carrier.relayhost.name == name or carrier.fault_text:
                waiters.tell(queue_id, Queued(why))
            else:
                carrier.waiters.adopt(queue_id)

    def linked(self, name: str) -> list[M]:
        """The members that must decide again after a change of whether `name` can be reached: all others, or none if there
        are no fallbacks."""
        if not any(one.relayhost.fallback for one in self.members.values()):
            return []
        return [one for one in self.members.values() if one.relayhost.name != name]

    def _is_unreachable(self, name: str) -> bool:
        return name in self.members and self.members[name].is_unreachable

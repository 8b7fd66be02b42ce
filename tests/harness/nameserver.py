"""A small authoritative DNS server on loopback, for tests.

    with Nameserver({("example.org", "TXT"): ["v=spf1 -all"]}) as server:
        … Resolver(server.address)

zone: the values of the records by name and kind, as in a zone file, names absolute; those of TXT are the text itself.
broken: names that it answers with SERVFAIL; silent: names that it does not answer. validated: whether its answers have the
AD bit. asked: the questions so far, in order.
"""

import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = Mapping[tuple[str, str], Sequence[str]]


class Nameserver:
    def __init__(
        self, zone: Zone, *, broken: Iterable[str] = (), silent: Iterable[str] = (), validated: bool = False
    ) -> None:
        self.zone = {(name.lower(), kind): list(values) for (name, kind), values in zone.items()}
        self.broken, self.silent = set(broken), set(silent)
        self.validated = validated
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, sender = self._socket.recvfrom(4096)
            if not data:
                return
            reply = self._reply(dns.message.from_wire(data))
            if reply is not None:
                self._socket.sendto(reply.to_wire(), sender)

    def _reply(self, query: dns.message.Message) -> dns.message.Message | None:
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind))
        if name in self.silent:
            return None
        reply = dns.message.make_response(query)
        if name in self.broken:
            reply.set_rcode(dns.rcode.SERVFAIL)
            return reply
        if not any(name == known for known, _ in self.zone):
            reply.set_rcode(dns.rcode.NXDOMAIN)
        values = self.zone.get((name, kind), [])
        if values:
            texts = [f'"{value}"' for value in values] if kind == "TXT" else values
            reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *texts))
        if self.validated:
            reply.flags |= dns.flags.AD
        return reply

"""The status of mailrelay for the page: one sentence, and each problem with its fix. Pure.

The texts of faults and fixes are those of `mailrelay status`.
"""

from dataclasses import dataclass

from mailrelay.control.status import Level, Status
from mailrelay.mail.overview import RelayhostFault, SpoolStatus
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import length, number_of_messages, size
from mailrelay.mail.reply_text import reply_text


@dataclass(frozen=True, slots=True)
class Problem:
    """title: what is wrong. lines: more about it. fix: what to do, commands and sentences; () for none. link: the path and
    the text of a link to a page that helps; ("", "") for none. All are printable."""

    title: str
    lines: tuple[str, ...] = ()
    fix: tuple[str, ...] = ()
    link: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Standing:
    """level: the name of a `Level` in lower case: fine, late or failed."""

    level: str
    sentence: str
    problems: tuple[Problem, ...]


def standing(status: Status, now: float) -> Standing:
    """The status for the page. now: epoch seconds."""
    spool = status.spool
    problems = [*_of_daemon(status), *_of_spool(status)]
    if spool is not None:
        problems += [_of_relayhost(fault, now, daemon_runs=status.pid is not None) for fault in spool.faults]
        problems += _of_notices(spool)
    return Standing(status.level.name.lower(), _sentence(status, now), tuple(problems))


def _sentence(status: Status, now: float) -> str:
    spool = status.spool
    if status.failure or spool is None:
        return "The spool cannot be used, so mailrelay accepts no mail."
    if status.space.full:
        return "There is no room for more mail."
    needing = spool.failed + spool.held + spool.bounced_there
    parts = []
    if needing:
        parts.append(f"{number_of_messages(needing)} {'needs' if needing == 1 else 'need'} you")
    if spool.pending:
        waits = "waits" if spool.pending == 1 else "wait"
        parts.append(f"{number_of_messages(spool.pending)} {waits} to be sent{_why_waiting(status, now)}")
    if parts:
        return f"{', and '.join(parts)}."
    if any(fault.setup for fault in spool.faults):
        return "No mail waits, but your server cannot be used as it is."
    if status.level is Level.FINE:
        return "All is well: no mail waits, and none has failed."
    return "No mail waits, and none has failed, but something is wrong."


def _why_waiting(status: Status, now: float) -> str:
    """The end of the sentence about mail that waits."""
    spool = status.spool
    if spool is None:
        return ""
    if spool.pending == spool.scheduled:
        return " at its time" if spool.pending == 1 else " at their time"
    if status.pid is None and not status.is_asleep:
        return ", but mailrelay does not run"
    if any(not fault.stand_in for fault in spool.faults):
        return ", but your server cannot be reached"
    return f", the oldest for {length(now - spool.oldest)}" if spool.late and spool.oldest is not None else ""


def _of_daemon(status: Status) -> list[Problem]:
    found = []
    if status.pid is None and not status.is_asleep:
        found.append(Problem("mailrelay does not run: nothing is sent", fix=("mailrelay serve",)))
    if status.answers is False:
        title = f"The daemon (process {status.pid or 'unknown'}) does not answer"
        found.append(Problem(title, fix=("End this process, and start mailrelay serve again.",)))
    found += [
        Problem(f"{printable(name)} cannot go on", (printable(text),), ("mailrelay log",))
        for name, text in status.errors
    ]
    return found


def _of_spool(status: Status) -> list[Problem]:
    if status.failure:
        return [Problem("The spool cannot be used", (printable(status.failure),))]
    if status.space.full:
        return [Problem("There is no room for more mail", (printable(status.space.full),))]
    if status.space.is_limited and status.space.largest is not None:
        return [Problem(f"There is only room for messages up to {size(status.space.largest)}")]
    return []


def _of_relayhost(fault: RelayhostFault, now: float, *, daemon_runs: bool) -> Problem:
    name = printable(fault.relayhost, 80)
    lines = [reply_text(line) for line in fault.text.splitlines()]
    if daemon_runs and not fault.setup:
        lines.append(f"It is tried again {'now' if fault.next_dial <= now else f'in {length(fault.next_dial - now)}'}.")
    if fault.stand_in:
        lines.append(f"Meanwhile its mail goes through {printable(fault.stand_in, 80)}.")
    is_key = "mailrelay trust" in fault.fix
    return Problem(
        f"{name} cannot be reached (for {length(max(0.0, now - fault.since))})",
        tuple(lines),
        tuple(printable(line) for line in fault.fix.splitlines()),
        (f"/host-key/{fault.relayhost}", "Look at the host keys") if is_key else ("", ""),
    )


def _of_notices(spool: SpoolStatus) -> list[Problem]:
    found = dict.fromkeys((backend, why) for _, backend, why in spool.failing_notices)
    return [Problem(f"Notices are not delivered by {backend} yet", (printable(why),)) for backend, why in found]

"""What `mailrelay status --metrics` prints: the status and the numbers of the spool, for Prometheus.

The text is correct OpenMetrics 1.0, and correct in the older text format of Prometheus, which the textfile collector of
node_exporter reads. Therefore every metric is a gauge: the older format has no type `info`, and other names for counters.
Sent and failed messages are counted in the history, and their number falls when history is deleted: a gauge, too.

A metric whose value is not known is left out. If the status cannot be told, only `mailrelay_status` and
`mailrelay_build_info` are left. The relayhosts are those of the settings, and others that have mail or a fault in the spool.

Promises: label values are escaped (`mail.printable`, and `\\`, `"` as the formats want it). No label has text of messages.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mailrelay import __version__
from mailrelay.config import Settings
from mailrelay.control.status import Status
from mailrelay.mail.overview import RelayhostFault
from mailrelay.mail.printable import printable
from mailrelay.mail.spool_errors import SpoolError
from mailrelay.mail.states import COUNTED_AS
from mailrelay.spool.counting import SpoolNumbers, numbers
from mailrelay.spool.database import opened_for_reading

CANNOT_TELL = 3
"""The value of `mailrelay_status` where the settings or the spool cannot be read."""

Labels = Mapping[str, str]


class Metric(NamedTuple):
    """A gauge. help: one sentence, without `\\` and `"`. unit: the end of its name ("bytes", "seconds"), "" for a
    number of things."""

    name: str
    help: str
    samples: Sequence[tuple[Labels, float]]
    unit: str = ""


def read_numbers(settings: Settings) -> SpoolNumbers | None:
    """The numbers of the spool; None if they cannot be read, or there is no spool."""
    try:
        with opened_for_reading(settings.queue.directory) as db:
            return numbers(db)
    except (SpoolError, OSError):
        # The status says why.
        return None


def metrics(settings: Settings, status: Status, found: SpoolNumbers | None, now: float) -> list[Metric]:
    """All metrics. found: None if the spool cannot be read. now: epoch seconds."""
    names = [relayhost.name for relayhost in settings.relayhosts]
    return [
        *_of_program(status.level.value),
        _number("up", "Whether a daemon serves and answers.", _serves(status)),
        _number("spool_usable", "Whether the spool can be used.", not status.failure),
        _number("spool_full", "Whether there is no room for an ordinary message.", bool(status.space.full)),
        *_of_status(status, names, now),
        *(_of_numbers(settings, names, found) if found is not None else ()),
    ]


def metrics_text(metrics: Iterable[Metric]) -> str:
    """The metrics as text that ends with `# EOF` and a line end. Pure."""
    return "".join(f"{line}\n" for metric in metrics for line in _lines(metric)) + "# EOF\n"


def cannot_tell() -> list[Metric]:
    """The metrics where the settings or the spool cannot be read."""
    return _of_program(CANNOT_TELL)


def _of_program(status: int) -> list[Metric]:
    return [
        Metric("mailrelay_build_info", "The version of mailrelay; the value is 1.", [({"version": __version__}, 1)]),
        _number("status", "The exit status of mailrelay status: 0 fine, 1 late, 2 failed, 3 cannot tell.", status),
    ]


def _serves(status: Status) -> bool:
    return status.pid is not None and status.answers is not False


def _of_status(status: Status, names: Sequence[str], now: float) -> Iterator[Metric]:
    if status.space.largest is not None:
        text = "Octets of the largest message for which there is room."
        yield _number("room_bytes", text, status.space.largest, "bytes")
    spool = status.spool
    if spool is None:
        return
    oldest = 0.0 if spool.oldest is None else max(0.0, now - spool.oldest)
    yield _number("oldest_pending_age_seconds", "The age of the oldest pending message; 0 if none.", oldest, "seconds")
    yield _number("late_messages", "Pending messages that have waited too long.", spool.late)
    yield _number("stranded_messages", "Held messages that cannot be sent as they are.", spool.stranded)
    yield _number("bounced_there_messages", "Messages that have bounced on the relayhost.", spool.bounced_there)
    yield _number("deferred_there_messages", "Messages deferred on the relayhost for too long.", spool.deferred_there)
    faults = {fault.relayhost: fault for fault in spool.faults}
    every = list(dict.fromkeys((*names, *faults)))
    usable = {name: 1.0 for name in every if name not in faults}
    yield _by_relayhost("relayhost_usable", "Whether no fault of the relayhost is known.", every, usable)
    setup_faults = {name: 1.0 for name, fault in faults.items() if fault.setup}
    yield _by_relayhost("relayhost_needs_you", "Whether the relayhost has a setup fault.", every, setup_faults)
    ages = {name: _age(fault, now) for name, fault in faults.items()}
    yield _by_relayhost("relayhost_fault_age_seconds", "The age of its fault; 0 if none.", every, ages, "seconds")
    if status.connected is not None:
        connected = dict.fromkeys(status.connected, 1.0)
        text = "Whether there is an SSH connection to the relayhost now; there is none while no mail needs it."
        yield _by_relayhost("relayhost_connected", text, every, connected)


def _of_numbers(settings: Settings, names: Sequence[str], found: SpoolNumbers) -> Iterator[Metric]:
    every = list(dict.fromkeys((*names, *(name for name, _ in found.messages))))
    samples: list[tuple[Labels, float]] = [
        ({"relayhost": name, "state": word}, found.messages.get((name, word), 0))
        for name in every
        for word in COUNTED_AS
    ]
    text = "Messages in the spool, history too, by relayhost and state; one may count under several states."
    yield Metric("mailrelay_messages", text, samples)
    pending: list[tuple[Labels, float]] = [({"backend": name}, count) for name, count in found.pending_notices.items()]
    yield Metric("mailrelay_pending_notices", "Notices that a backend has not delivered yet.", pending)
    yield _number("spool_size_bytes", "Octets of the spool's file that are used.", found.size, "bytes")
    yield _number("spool_limit_bytes", "The setting queue.max_size.", settings.queue.max_size, "bytes")


def _number(name: str, text: str, value: float, unit: str = "") -> Metric:
    return Metric(f"mailrelay_{name}", text, [({}, value)], unit)


def _by_relayhost(name: str, text: str, every: Iterable[str], values: Mapping[str, float], unit: str = "") -> Metric:
    """values: by relayhost; those that are not in it have 0."""
    return Metric(f"mailrelay_{name}", text, [({"relayhost": one}, values.get(one, 0.0)) for one in every], unit)


def _age(fault: RelayhostFault, now: float) -> float:
    return max(0.0, now - fault.since)


def _lines(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}"
    yield f"# TYPE {metric.name} gauge"
    if metric.unit:
        yield f"# UNIT {metric.name} {metric.unit}"
    for labels, value in metric.samples:
        listed = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        yield f"{metric.name}{{{listed}}} {_shown(value)}" if listed else f"{metric.name} {_shown(value)}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')


def _shown(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.3f}"

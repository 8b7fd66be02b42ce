"""The late imports of the daemon. Each function imports one module and returns what the daemon needs of it.

SSH alone is a third of the memory of a daemon that has loaded it, and a daemon mostly waits: these modules are loaded when
they are first needed. An import takes up to half a second, so code on the event loop calls these functions on a thread. The
imports are statements: the linter and mypy check them. (`cli.command_line` and `cli.lazy` do the same for the command line.)

    ssh_dial()                                     opens SSH connections
    desktop(), mailbox(), command(), urls()        make a notice backend (`notify.notifier.Loaders`)
    report()                                       queues a report by mail

Promises: an import that failed is tried again at the next call. Raises what the import raises.
"""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from mailrelay.mail.notice import PendingNotice
from mailrelay.notify.backend import Deliver
from mailrelay.ports import NoticePort
from mailrelay.ssh.interface import Dial


def ssh_dial() -> Dial:
    from mailrelay.ssh.dial import dial

    return dial


def desktop() -> Deliver:
    from mailrelay.notify.desktop import Desktop

    return Desktop().deliver


def mailbox() -> Callable[[Path, Callable[[], float]], Deliver]:
    from mailrelay.notify.mailbox import mailbox as backend

    return backend


def command() -> Callable[[Sequence[str]], Deliver]:
    from mailrelay.notify.command import command as backend

    return backend


def urls() -> Callable[[Sequence[str]], Deliver]:
    from mailrelay.notify.urls import urls as backend

    return backend


def report() -> Callable[[PendingNotice, NoticePort, float], Coroutine[Any, Any, None]]:
    from mailrelay.notify.dsn import report as queue_report

    return queue_report

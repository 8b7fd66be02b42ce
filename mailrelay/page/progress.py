"""The progress of the messages that are being sent, for the page."""

from pathlib import Path
from typing import NamedTuple

from mailrelay.control.progress import sending
from mailrelay.mail.sending import fraction, progress_text


class Progress(NamedTuple):
    """percent: of the content that has arrived, 0 to 100. text: octets, rate and time left."""

    percent: float
    text: str


def progress(directory: Path) -> dict[str, Progress]:
    """The progress of each message that is being sent, by queue id; {} if the daemon does not say. directory: the spool."""
    return {one.queue_id: Progress(100 * fraction(one), progress_text(one)) for one in sending(directory)}

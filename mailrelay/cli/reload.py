"""`mailrelay reload`: the daemon reads its settings again. Connections and mail in progress go on.

Exit status: 0 the daemon has the new settings, or is asleep and reads them when it starts; 78 they cannot be used, and
it goes on with the old ones; 1 no daemon runs, or it does not answer.
"""

import click

from mailrelay.cli.base import NO_DAEMON, Failed, load_settings
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.daemon import NoAnswer, reload

EX_CONFIG = 78


@click.command("reload")
def command() -> None:
    """Make the daemon read its settings again. Connections and mail in progress go on."""
    settings = load_settings()
    try:
        with waiting_for("the daemon to read its settings"):
            why_refused = reload(settings.queue.directory)
    except NoAnswer:
        raise Failed("the daemon does not answer: end it, and start `mailrelay serve`") from None
    if why_refused is None:
        raise Failed(f"{NO_DAEMON}. A reload cannot change queue.directory ({settings.queue.directory})")
    if why_refused:
        raise Failed(f"the daemon goes on with its old settings: {why_refused}", EX_CONFIG)

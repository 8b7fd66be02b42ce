"""`mailrelay web [ID]`: a local page in the browser, to mend refused mail, and to see the queue and each message
(`mailrelay.page`).

With ID, the page opens at this message. The command prints the address, which opens the page once. It runs until the page
has had no reader for fifteen minutes, or until Ctrl-C.
"""

import sys

import click

from mailrelay.cli.base import load_settings, settings_path
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.terminal import put
from mailrelay.control.details import whole_id
from mailrelay.page import server


@click.command("web")
@click.argument("queue_id", metavar="[ID]", required=False, shell_complete=queue_ids)
@click.option("--no-browser", is_flag=True, help="Print the address of the page, and open no browser.")
def command(queue_id: str | None, no_browser: bool) -> None:
    """Mend refused mail, and see the queue, in the browser."""
    settings = load_settings()
    start = f"/message/{whole_id(settings.queue.directory, queue_id)[0]}" if queue_id else "/"
    argv = (sys.executable, "-m", "mailrelay", "--config", str(settings_path()))
    server.run(settings, argv, start, opens_browser=not no_browser, say=_say)


def _say(url: str, is_opened: bool) -> None:
    if is_opened:
        put("The page opens in your browser. If it does not, open this address. It works once:", url)
    else:
        put("Open this address in a browser on this computer. It works once:", url)
    put("The page ends after 15 minutes without a reader, or with Ctrl-C.")

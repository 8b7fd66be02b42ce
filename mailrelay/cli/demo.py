"""`mailrelay demo`: the whole relay on loopback against an embedded mail server, with a commentary. Exit status: 0 if
everything happened as it should, 1 otherwise. With `--web` it stays up for its page (`mailrelay web`)."""

import click

from mailrelay.cli.terminal import put
from mailrelay.demo import scenario


@click.command("demo")
@click.option("--web", is_flag=True, help="Stay up, and open a page that shows the messages.")
def command(web: bool) -> int:
    """Show mailrelay at work on loopback, with an embedded mail server: one message arrives, one is refused, one waits
    and arrives."""
    return scenario.run(lambda line, hang: put(line, hang=hang), opens_page=web)

"""`mailrelay demo`: the whole relay on loopback against an embedded mail server, with a commentary. Exit status: 0 if
everything happened as it should, 1 otherwise."""

import click

from mailrelay.cli.terminal import put
from mailrelay.demo import scenario


@click.command("demo")
def command() -> int:
    """Show mailrelay at work on loopback, with an embedded mail server: one message arrives, one is refused, one waits
    and arrives."""
    return scenario.run(lambda line, hang: put(line, hang=hang))

"""`mailrelay demo`: the whole relay on loopback against an embedded remote, told as a story. Ends with status 0."""

import click

from mailrelay.demo import story


@click.command()
def command() -> int:
    """The whole thing on loopback, with an embedded remote: one mail arrives, one is refused, one waits and arrives."""
    return story.run()

"""An embedded remote (SSH server and mail server) on loopback, and a demonstration of mailrelay against it.

    mailserver.py   SMTP dialogue    remote.py   SSH server and life cycle    scenario.py   `mailrelay demo`

`mailrelay demo` runs on it, and the tests use it as their peer. It never touches the user's files: keys, known_hosts and
ssh_config are in a directory that the caller provides.
"""

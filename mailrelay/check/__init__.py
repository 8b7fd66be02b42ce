"""`mailrelay check`: examines once everything that the delivery of mail needs, and names the fix for each failure.

    examination.py      runs all checks and yields their findings in order
    finding.py          the result of one check
    environment.py      adopts the environment of the daemon, so that the checks see what the daemon sees
    machine.py          spool, daemon and listening addresses; needs no network
    backends.py         notice backends
    connection_path.py  the path to a relayhost: ssh_config, keys, each hop, the mail server
    dns_reputation.py   DNS records of the senders' domains and of the server's address

Promises: changes nothing and sends no mail. Every step that needs the network has a time limit. A check that could not be
made is reported as unknown, not as failed.
"""

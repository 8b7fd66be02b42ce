"""The SSH connection to a relayhost, and changes to authorized_keys there. Only this package and the `demo` import asyncssh.

interface           the connection as the relay sees it; imports no SSH library
dial                connects: reads ssh_config, logs in to each hop
connection, channel, greeting, flow_control     an open connection and its byte streams
hop_connection, authentication, tcp, proxy_command      the login to one hop
ssh_config, hops, known_hosts, ignored_directives       the person's own files
host_key_scan, mail_path, restriction_probe, authorized_keys        for the commands `trust`, `setup` and `check`
errors, randomart, asyncssh_patches
"""

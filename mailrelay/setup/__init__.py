"""The files that `mailrelay setup` writes on this computer: settings, a service unit, and ssh_config for a restricted key.

`settings`, `notice_backend` and `restriction` plan texts; `unit` installs, and `system` for all accounts of the computer.
`cli.setup` asks the person. The work on the remote is in `ssh.authorized_keys`, `ssh.restriction_probe` and
`ssh.host_key_scan`.
"""

"""The SSH connection to a relayhost: dialling, jump hosts, ssh_config, host keys, channels, and authorized_keys over there.

`interface` is what other packages see of a connection; it imports no SSH library. Only this package imports asyncssh, the
embedded remote in `demo` apart.
"""

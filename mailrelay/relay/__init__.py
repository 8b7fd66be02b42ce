"""Mail goes out: when (scheduler), by which connection (transport, route, hostkeys), and what is said there (delivery).

`listener`, `spool` and `notify` are not imported here: what is needed of them comes in as Protocols of a few methods.
Only this package imports asyncssh, the embedded remote in `demo` apart.
"""

"""Notices to the person: each notice backend in the settings delivers every notice, and is tried again until it has.

`notifier` takes pending notices from the spool and decides when to try again. `backend` is the interface of a backend,
`desktop_presence` finds out whether this computer can have a desktop; each other module is one backend. Nothing here needs
the relay, so a notice of a delivery failure does not depend on the delivery of mail. The exception is the `dsn` backend: it
queues its report as mail. The other backends work without it.
"""

"""Keeps the mail: one SQLite file, the only durable place. The only package that knows it is SQLite.

    schema.sql          the tables, with constraints         spool.py            the engine for the daemon (async)
    database.py         opening, checking, migrating         command_spool.py    the engine for commands (sync)
    writer.py           group commit: one fsync for many     queue_ids.py        ids of messages
    accepting.py        a message comes in                   space.py            whether there is space for another message
    attempts.py         what is due, attempts, outcomes      correspondents.py   addresses that were reached before
    relayhosts.py       the state of the relayhosts          clock.py            repairs what a wrong clock has written
    notices.py          pending notices                      lock.py             one daemon at a time
    notice_lifecycle.py open notices: until a cause ends     trigger.py          wakes the daemon
    actions.py          actions of the person, history       completing.py       completes bare addresses
    files.py            whether the files are still whole
    replacement.py      a message in the place of another    successors.py       the newest replacement of a message
    listing.py          what the person sees                 handing_in.py       a message that cannot be sent as it came

`Spool` and `CommandSpool` implement `mailrelay.ports`. The functions in the other files take an open connection and the
time, and run inside the caller's transaction: the writer thread of the daemon puts many into one commit, a command puts one.
Never open or close the database file in any other way: a close() anywhere in the process drops SQLite's locks.
"""

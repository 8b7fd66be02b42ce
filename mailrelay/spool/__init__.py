"""Keeps the mail: one SQLite file, the only durable place. The only package that knows it is SQLite.

    schema.sql          the tables, with constraints              spool.py            the engine for the daemon (async)
    database.py         opening, checking, migrating              command_spool.py    the engine for commands (sync)
    writer.py           group commit: one fsync for many          queue_ids.py        ids of messages
    accepting.py        a message comes in                        space.py            whether there is space for more
    attempts.py         what is due, attempts, outcomes           correspondents.py   addresses that were reached before
    relayhosts.py       the state of the relayhosts               clock.py            repairs what a wrong clock has written
    notices.py          pending notices                           lock.py             one daemon at a time
    notice_lifecycle.py open notices: until a cause ends          trigger.py          wakes the daemon
    actions.py          actions of the person, history            liveness.py         asks the daemon whether it is well
    replacement.py      a message in the place of another         completing.py       completes bare addresses
    listing.py          what the person sees                      successors.py       the newest replacement of a message
    handing_in.py       a message that cannot be sent as it came  ballast.py          space for outcomes on a full disk
    checksums.py        of messages, recipients and pieces        stored.py           reads a message, with its checksums
    inspection.py       damage in the whole file, and its repair  damage_search.py    that search, beside other work
    files.py            whether the files are still whole         log_end.py          unreadable commits at its end
    ownership.py        whose messages a process may see

`Spool` and `CommandSpool` implement `mailrelay.ports`. The functions in the other files take an open connection and the
time, and run inside the caller's transaction: the writer thread of the daemon puts many into one commit, a command puts one.
Never open or close the database file in any other way: a close() anywhere in the process drops SQLite's locks.
"""

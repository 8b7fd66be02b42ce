"""Mail rests here: the only durable place, one SQLite file, and the only room that knows it is SQLite.

    schema.sql     the tables, which defend themselves         accepting.py       a message comes in
    database.py    opening, checking, migrating                attempts.py        what is due, attempts, what came of them
    writer.py      group commit: one fsync for all who wait    notices.py         what the person is owed
    spool.py       the daemon's view of all of it (async)      verbs.py           what the person may do, and housekeeping
    lock.py        one daemon at a time                        fixing.py         a message in the place of another
    trigger.py     the bell that wakes the daemon              listing.py         what the person sees
    clock.py       what a clock that was wrong has left       correspondents.py  who has been reached before

The functions in these files take an open connection and run inside somebody's transaction: the daemon's writer thread
puts many into one commit, a command of the person's puts one. Nobody else opens the file: an open() and close() of it
anywhere in the process would drop SQLite's locks.
"""

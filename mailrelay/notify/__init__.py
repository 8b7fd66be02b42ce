"""The person hears: what is owed to them is carried by every backend that they set up, until each has carried it.

`notifier` knows what is owed and when to try again; each other module is one backend. Nothing here needs the relay: bad
news does not travel the backend that failed (a report by mail is queued as mail, and other backends stand beside it).
"""

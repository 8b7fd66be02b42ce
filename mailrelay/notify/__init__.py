"""The person hears: what is owed to them is carried by every road that they set up, until each has carried it.

`notifier` knows what is owed and when to try again; each other module is one road. Nothing here needs the relay: bad
news does not travel the road that failed (a report by mail is queued as mail, and other roads stand beside it).
"""

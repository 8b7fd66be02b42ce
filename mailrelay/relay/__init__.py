"""Mail goes out: when and over how many channels (`scheduler`, `connector`), and what is said there (`delivery`).

`listener`, `spool`, `network` and `notify` are not imported here: what is needed of them comes in as Protocols of a few
methods. Of `ssh` only `interface` is imported.
"""

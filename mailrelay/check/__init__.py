"""The doctor: everything that mail needs on its way, looked at once, with the step that fixes what is wrong.

    finding.py       what a check found, as a value       machine.py   spool and addresses: needs no network
    environment.py   looks with the service's own eyes    backends.py     how bad news would reach the person
    examination.py   all of it, in order, as it comes     way.py       the way to a relayhost, step by step
                                                          world.py     the senders' domains, as others see them

Promises: changes nothing and sends no mail. Every step that needs the network has a bound, and what could not be asked is
said to be unknown, not wrong.
"""

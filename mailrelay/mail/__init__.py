"""What a message is and what becomes of it.

Pure: no I/O, no clock, no randomness, no logging. Everything here is a value or a function from values to a value,
so that every rule about a person's mail can be read, and tested over its whole table, in one place.
"""

"""What a message is, and what becomes of it.

Pure: no I/O, no clock, no randomness, no logging. Everything in this package is a value or a function of values. So each
rule about a person's mail is written in one place, and is tested for all of its cases.
"""

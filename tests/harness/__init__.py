"""What tests share: servers, clients and daemons to test with, and helpers to make messages, settings and records.

Test modules import from here and from mailrelay, never from each other (tests/unit/test_imports.py). A helper that only one
test module uses stays in that module.
"""

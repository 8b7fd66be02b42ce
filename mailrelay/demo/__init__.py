"""An embedded remote on loopback, and the demonstration that runs the real relay against it.

Product code: `mailrelay demo` runs on it, and it is the tests' peer. It never touches anything of the user's: keys, known
hosts and ssh_config lie in a directory that the caller gives.
"""

"""What `mailrelay setup` leaves on this computer: settings, a service unit, and what confines a key that is for mail alone.

`settings` and `restriction` decide, from text to text; `unit` installs. `cli.setup` asks the person, and `relay.admission`,
`relay.confinement` and `relay.offer` do what is to be done with the remote.
"""

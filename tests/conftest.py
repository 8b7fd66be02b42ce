"""What all tests share: hypothesis without deadlines, because how fast a machine is today is no property of this program."""

from hypothesis import settings

settings.register_profile("mailrelay", deadline=None)
settings.load_profile("mailrelay")

"""`python -m mailrelay` and the `mailrelay` script."""

from mailrelay.cli import main

if __name__ == "__main__":
    main()

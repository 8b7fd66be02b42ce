"""`python -m mailrelay` and the `mailrelay` script."""

import gc

# Imports make many objects that stay, and few reference cycles: garbage collections meanwhile would find nothing.
gc.set_threshold(50_000)

from mailrelay.cli.command_line import main  # noqa: E402 - the setting above is for this import

if __name__ == "__main__":
    main()

"""`python -m mailrelay` and the `mailrelay` script."""

import gc

# Loading makes many objects that stay and hardly a circle: to look for circles meanwhile is for nothing.
gc.set_threshold(50_000)

from mailrelay.cli import main  # noqa: E402 - loading is what the line above is about

if __name__ == "__main__":
    main()

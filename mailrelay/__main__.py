"""`python -m mailrelay` and the `mailrelay` script."""

import gc

# Loading makes many objects that stay, and hardly a reference cycle: no garbage collection is needed meanwhile.
gc.set_threshold(50_000)

from mailrelay.cli import main  # noqa: E402 - what is loaded here is meant above

if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""How much memory the daemon uses: before its first message, and while it delivers a queue of large messages.

    python3 contrib/bench/memory.py [--rounds 3] [--messages 100] [--size 10000000] [--delay 0]

PSS is from smaps_rollup. It counts memory that is shared with other processes in part, so it is lower if another Python
runs; RSS counts such memory in full. The queue is on disk when a new daemon starts. The remote is smtp-sink behind an sshd.
The memory is read every 20 ms until the last message is sent, and the highest value is reported. There is no peer.
"""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from parts import PATIENCE, Scene, arguments, scene

# isort: split
# parts puts what follows on the path.
from harness.postfix import send_with_source

MEGA = 1024 * 1024


def held(process: int) -> tuple[float, float]:
    """PSS and RSS of a process, in MB of 2^20 octets."""
    fields = dict(line.split(":") for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
    return tuple(int(fields[name].split()[0]) * 1024 / MEGA for name in ("Pss", "Rss"))  # type: ignore[return-value]


def idle(at: Scene, far_port: int) -> tuple[float, float]:
    with at.relay(far_port) as relay:
        assert relay.child is not None
        time.sleep(1)
        return held(relay.child.process.pid)


def draining(at: Scene, far_port: int, messages: int, size: int) -> tuple[float, float, float]:
    """The highest PSS and RSS, and the duration in seconds."""
    at.refuse_connections()
    with at.relay(far_port, answer_within="0s") as relay:
        send_with_source(at.package, relay.port, messages=messages, sessions=2, size=size, patience=PATIENCE)
        relay.stop()
        at.allow_connections()
        relay.do("queue", "retry", "--all")
        began = time.perf_counter()
        child = relay.start()
        seen = list(watched(child.process.pid, relay.directory / "spool/mailrelay.log", messages))
        return max(pss for pss, _ in seen), max(rss for _, rss in seen), time.perf_counter() - began


def watched(process: int, log: Path, messages: int) -> Iterator[tuple[float, float]]:
    end = time.monotonic() + PATIENCE
    while log.read_bytes().count(b"status=sent") < messages:
        if time.monotonic() > end:
            raise SystemExit(f"the queue is not empty after {PATIENCE:.0f} s; see {log}")
        yield held(process)
        time.sleep(0.02)
    yield held(process)


def report(name: str, figures: list[tuple[float, float]]) -> None:
    pss, rss = zip(*figures, strict=True)
    print(f"{name:10} PSS {statistics.median(pss):.1f} MB ({min(pss):.1f} to {max(pss):.1f}), RSS {max(rss):.1f} MB")


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.set_defaults(delay=0.0)
    parser.add_argument("--messages", type=int, default=100)
    parser.add_argument("--size", type=int, default=10_000_000)
    options = parser.parse_args()
    with scene(options) as at:
        far_port = at.sink().port
        report("idle", [idle(at, far_port) for _ in range(options.rounds)])
        runs = [draining(at, far_port, options.messages, options.size) for _ in range(options.rounds)]
        report("draining", [(pss, rss) for pss, rss, _ in runs])
        took = statistics.median(took for *_, took in runs)
        print(f"           {options.messages} messages of {options.size / 1_000_000:g} MB in {took:.1f} s")


if __name__ == "__main__":
    main()

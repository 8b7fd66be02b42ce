#!/usr/bin/env python3
"""Shows what a small change to the core does not turn red: `python contrib/mutate --seed 1 --sample 100`.

Makes a seeded sample of changes, each at one place (`changes`), in copies of the checkout (`running`). For each change the
tests run that cover its place (`covering`), the fastest first. A change that none of them notices is a survivor: it is
printed as a diff. Some survivors mean the same as the source; each other one needs a test, or is code that no behaviour
needs.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from covering import CoveringTests, make_map
from running import Result, Runner, diff, mutants

ROOT = Path(__file__).parents[2]
CORE = ("spool", "mail", "smtp", "relay", "listener", "tracking", "intake.py")


def copy_tree(to: Path) -> Path:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def main() -> int:
    parser = argparse.ArgumentParser(prog="contrib/mutate", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("part", nargs="*", default=CORE, help=f"packages or files below mailrelay/ ({' '.join(CORE)})")
    parser.add_argument(
        "--seed", type=int, default=None, help="the same seed makes the same sample of the same sources"
    )
    parser.add_argument("--sample", type=int, default=100, help="number of changes (100)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="changes that are tried at once")
    parser.add_argument("--budget", type=float, default=60, help="seconds of tests for one change, at most (60)")
    parser.add_argument("--map", type=Path, default=ROOT / ".mutate", help="directory of the map of tests (.mutate)")
    parser.add_argument("--list", action="store_true", help="print the changes of the sample, and run nothing")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="mutate-") as scratch:
        trees = [copy_tree(Path(scratch, str(number))) for number in range(options.jobs)]
        everything = mutants(trees[0], options.part)
        sample = random.Random(seed).sample(everything, min(options.sample, len(everything)))
        print(f"{len(sample)} of {len(everything)} changes, seed {seed}", flush=True)
        if options.list:
            print("\n".join(diff(mutant, ROOT) for mutant in sample))
            return 0
        try:
            covering = CoveringTests(options.map, trees[0])
        except (FileNotFoundError, ValueError):
            print("makes the map of tests: all tests run once", flush=True)
            make_map(options.map, trees[0], options.jobs)
            covering = CoveringTests(options.map, trees[0])
        if covering.new:
            print(f"adds {len(covering.new)} tests to the map", flush=True)
            make_map(options.map, trees[0], options.jobs, covering.new)
            covering = CoveringTests(options.map, trees[0])
        runner = Runner(covering, trees, options.budget)
        results = []
        with ThreadPoolExecutor(options.jobs) as pool:
            for result in pool.map(runner.run, sample):
                results.append(result)
                _print(result)
    return _summarize(results)


def _print(result: Result) -> None:
    change = result.mutant.change
    more = f", {result.left_out} more left out" if result.left_out else ""
    place = f"mailrelay/{result.mutant.file}:{change.lines[0]}"
    print(f"{result.how}: {place} {change.kind} ({result.tests} tests{more}, {result.seconds:.0f} s)", flush=True)
    if result.how == "survived":
        print(diff(result.mutant, ROOT), flush=True)


def _summarize(results: Sequence[Result]) -> int:
    total = Counter(result.mutant.package for result in results)
    survived = Counter(result.mutant.package for result in results if result.how == "survived")
    print("\npackage      changes  caught  survived")
    for package in (*sorted(total), "all"):
        of, left = (len(results), survived.total()) if package == "all" else (total[package], survived[package])
        print(f"{package:12} {of:7} {of - left:7} {left:9}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

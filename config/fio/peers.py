#!/usr/bin/env python3
"""fio and `hoist io` by turns over the same file, compared pair by pair.

For each mode a file is freshly written. fio is tried first with every kind of memory (small pages; huge pages where
some are reserved, else transparent ones) and with registered buffers and without, by turns, a few times each; what gave
the best median stands for fio from then on: were it the best of four in every pair, chance would help it. Then come
pairs, one run of each, the first of them by turns. Each pair gives a ratio, hoist's rate by fio's: a drive that drifts
does so under both. Printed is the median of the ratios with their spread.

Both run for the same time, with the same block size and depth. hoist's requests are of 64 MiB, cut into blocks.
Needs fio (Debian's package of that name) and Python's standard library.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

# hoist's name for the file in a directory that it measures.
NAME = "hoist-io.data"
# Where drives reach their peak, in bytes a second and in operations a second.
BLOCKS = {"read": "1 MiB", "write": "1 MiB", "mixed": "1 MiB", "randread": "4 KiB", "randwrite": "4 KiB"}
DEPTH = 32
# Tries of each of fio's variants before the pairs: enough for a median.
TRIES = 3
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size_bytes(text):
    """The bytes of a size such as "4 GiB" or "4GiB"."""
    number, unit = text[:-3].strip(), text[-3:]
    if not number.isdecimal() or unit not in UNITS:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number with KiB, MiB or GiB, such as "4 GiB"')
    return int(number) * UNITS[unit]


def checked_size(text):
    """The same text when it is a size."""
    size_bytes(text)
    return text


def variants(block_bytes):
    """fio's kinds of memory and of buffers: a name, the job's words, and the environment."""
    meminfo = dict(line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    huge_bytes = int(meminfo.get("HugePages_Free", "0")) * int(meminfo.get("Hugepagesize", "0 kB").split()[0]) << 10
    if huge_bytes >= 2 * DEPTH * block_bytes:
        huge = ("huge pages", "mmaphuge", {})
    else:
        # glibc 2.35 and newer: malloc asks for transparent huge pages (madvise).
        huge = ("transparent huge pages", "malloc", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
    for name, memory, environment in [("small pages", "mmap", {}), huge]:
        for fixed in ["0", "1"]:
            words = {"MEMORY": memory, "FIXEDBUFS": fixed, **environment}
            yield f"{name}, fixedbufs={fixed}", words


def call(command, **more):
    """Runs a command that must end well."""
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def rate(report):
    """Bytes per second of both directions together, of either program's report."""
    directions = [report[name] for name in ("read", "write") if name in report]
    return sum(found.get("bytes_per_second", found.get("bw_bytes", 0)) for found in directions)


class Bench:
    """One mode in one directory."""

    def __init__(self, arguments, mode, folder):
        self.arguments, self.mode, self.json = arguments, mode, pathlib.Path(folder) / "report.json"
        self.file = pathlib.Path(arguments.directory) / NAME

    def hoist(self, *flags):
        """One run of hoist, which leaves the file there."""
        command = [self.arguments.hoist, "io", self.arguments.directory, "--keep", "--size", self.arguments.size]
        call(command + ["--json", self.json] + list(flags))
        return rate(json.loads(self.json.read_text()))

    def write_file(self):
        """A file that nobody has used: one small request is the least that hoist does with it."""
        self.file.unlink(missing_ok=True)
        self.hoist("--requests", "1:4 KiB")

    def run_hoist(self):
        """One measurement of hoist."""
        flags = ["--rw", self.mode, "--block-size", BLOCKS[self.mode], "--queue-depth", str(DEPTH)]
        return self.hoist(*flags, "--seconds", str(self.arguments.seconds))

    def run_fio(self, words):
        """One measurement of fio."""
        job = pathlib.Path(__file__).parent / f"{self.mode}.fio"
        # fio takes a colon for the end of a file's name.
        given = {
            "FILE": str(self.file.absolute()).replace(":", r"\:"),
            "SIZE": str(size_bytes(self.arguments.size)),
            "BLOCK": str(size_bytes(BLOCKS[self.mode])),
            "DEPTH": str(DEPTH),
            "RUN_SECONDS": str(self.arguments.seconds),
        }
        environment = {**os.environ, **given, **words}
        call(["fio", "--output-format=json", f"--output={self.json}", job], env=environment)
        return rate(json.loads(self.json.read_text())["jobs"][0])

    def best_of_fio(self):
        """fio's best variant."""
        tries = {name: [] for name, _ in variants(size_bytes(BLOCKS[self.mode]))}
        for _ in range(self.arguments.tries):
            for name, words in variants(size_bytes(BLOCKS[self.mode])):
                tries[name].append(self.run_fio(words))
        for name, rates in tries.items():
            print(f"  fio with {name}: {statistics.median(rates) / 1e9:.3f} GB/s")
        best = max(tries, key=lambda name: statistics.median(tries[name]))
        return best, dict(variants(size_bytes(BLOCKS[self.mode])))[best]

    def compare(self):
        """All of it, for one mode."""
        print(f"{self.mode}, {BLOCKS[self.mode]} x {DEPTH}, {self.arguments.size}")
        self.write_file()
        name, words = self.best_of_fio()
        pairs = []
        for number in range(self.arguments.pairs):
            if number % 2 == 0:
                fio = self.run_fio(words)
                hoist = self.run_hoist()
            else:
                hoist = self.run_hoist()
                fio = self.run_fio(words)
            pairs.append((hoist, fio))
            print(f"  pair {number + 1}: hoist {hoist / 1e9:.3f} GB/s, fio {fio / 1e9:.3f} GB/s, {hoist / fio:.3f}")
        ratios = sorted(hoist / fio for hoist, fio in pairs)
        lower, _, upper = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        print(
            f"{self.mode}: hoist / fio ({name}): median {statistics.median(ratios):.3f}, "
            f"half of {len(ratios)} pairs in {lower:.3f} to {upper:.3f}, all in {ratios[0]:.3f} to {ratios[-1]:.3f}"
        )


def main():
    """Reads the arguments and goes through the modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="where the file is made, on the drive to measure")
    parser.add_argument("--hoist", default="target/release/hoist", help="the built command")
    parser.add_argument("--modes", default=",".join(BLOCKS), help="which of %(default)s")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tries", type=int, default=TRIES, help="of each of fio's variants")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--size", type=checked_size, default="4 GiB", help="of the file: a whole number with KiB, MiB or GiB")
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    unknown = [mode for mode in modes if mode not in BLOCKS]
    if unknown or arguments.pairs < 1 or arguments.tries < 1:
        parser.error(f"--modes are {', '.join(BLOCKS)} ({', '.join(unknown)} is none); --pairs and --tries at least 1")
    for program in ["fio", arguments.hoist]:
        if shutil.which(program) is None:
            parser.error(f"{program} is not there: fio is Debian's package fio, hoist is built by cargo build --release")
    with tempfile.TemporaryDirectory() as folder:
        bench = None
        try:
            for mode in modes:
                bench = Bench(arguments, mode, folder)
                bench.compare()
        finally:
            if bench:
                bench.file.unlink(missing_ok=True)


if __name__ == "__main__":
    main()

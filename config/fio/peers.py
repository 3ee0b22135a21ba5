#!/usr/bin/env python3
"""fio and `hoist io` by turns over the same file, compared pair by pair.

For each mode a file is freshly written. fio is tried first with every kind of memory (small pages; huge pages where
some are reserved, else transparent ones) and with registered buffers and without, by turns, a few times each; what gave
the best median stands for fio from then on: were it the best of four in every pair, chance would help it. Then come
pairs, one run of each, the first of them by turns. Each pair gives a ratio, hoist's rate by fio's: a drive that drifts
does so under both. Printed is the median of the ratios with their spread.

Both run for the same time, or move the same bytes, with the same block size and depth, and but for the modes that name
larger requests, which hoist cuts into blocks, with as much memory under way. On a file system without direct I/O, such as tmpfs, both go without.
Beside the rates stands what each took of the processors (its own time and the kernel's for it) for each GiB. Only with
direct I/O: without it most of the work is done by the kernel's workers of the ring (io-wq), whose time is in hoist's
figure and not in fio's, so nothing is said of it then.
Needs fio (Debian's package of that name) and Python's standard library.
"""

import argparse
import itertools
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import typing

# hoist's name for the file in a directory that it measures.
NAME = "hoist-io.data"
DEPTH = 32
# Tries of each of fio's variants before the pairs: enough for a median.
TRIES = 3
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Mode(typing.NamedTuple):
    """What is compared: blocks of a size, in fio's job of a name, for a time or as often as hoist's --requests says."""

    block: str
    job: str
    requests: str = ""

    def io_bytes(self):
        """How many bytes are moved; 0 when the time ends it."""
        if not self.requests:
            return 0
        number, each = self.requests.split(":")[:2]
        return int(number) * size_bytes(each)


# Where drives reach their peak, in bytes a second and in operations a second; and what a trainer asks for: layers, one
# large request after the other, and small tensors from all over the file.
MODES = {
    "read": Mode("1 MiB", "read"),
    "write": Mode("1 MiB", "write"),
    "mixed": Mode("1 MiB", "mixed"),
    "layers": Mode("1 MiB", "read", "64:64 MiB"),
    "tensors": Mode("1 MiB", "randread", "1000:1 MiB:random"),
    "small-tensors": Mode("64 KiB", "randread", "20000:64 KiB:random"),
    "randread": Mode("4 KiB", "randread"),
    "randwrite": Mode("4 KiB", "randwrite"),
}


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


class Run(typing.NamedTuple):
    """One measurement: bytes per second of both directions together, and processor seconds for a GiB."""

    rate: float
    cpu: float

    @classmethod
    def of_hoist(cls, report):
        """hoist's report."""
        directions = [report[name] for name in ("read", "write") if name in report]
        if not directions:
            sys.exit("hoist moved nothing: give it more --seconds")
        return cls(sum(found["bytes_per_second"] for found in directions), report["cpu_seconds_per_gib"])

    @classmethod
    def of_fio(cls, job):
        """One job of fio's report, which has processor time as a share of the run's."""
        moved = job["read"]["io_bytes"] + job["write"]["io_bytes"]
        if moved == 0:
            sys.exit("fio moved nothing: give it more --seconds")
        seconds = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1000
        return cls(job["read"]["bw_bytes"] + job["write"]["bw_bytes"], seconds / (moved / (1 << 30)))


def describe(ratios):
    """The median of ratios, the interval that it lies in with 95 %, by order statistics, and their spread."""
    ratios, many = sorted(ratios), len(ratios)
    # The median lies below the ratio at place n (from 0) with the chance that at most n of many coins show heads.
    below = itertools.accumulate(math.comb(many, heads) / 2**many for heads in range(many))
    outside = sum(1 for chance in below if chance <= 0.025)
    spread = f"all of {many} in {ratios[0]:.3f} to {ratios[-1]:.3f}"
    if outside > 0:
        spread = f"{ratios[outside - 1]:.3f} to {ratios[many - outside]:.3f} with 95 %; {spread}"
    return f"{statistics.median(ratios):.3f} ({spread})"


class Bench:
    """One mode in one directory."""

    def __init__(self, arguments, name, folder):
        self.arguments, self.name, self.mode, self.direct = arguments, name, MODES[name], True
        self.json = pathlib.Path(folder) / "report.json"
        self.file = pathlib.Path(arguments.directory) / NAME

    def hoist(self, *flags):
        """One run of hoist, which leaves the file there."""
        command = [self.arguments.hoist, "io", self.arguments.directory, "--keep", "--size", self.arguments.size]
        call(command + ["--json", self.json] + list(flags))
        return json.loads(self.json.read_text())

    def write_file(self):
        """A file that nobody has used: one small request is the least that hoist does with it."""
        self.file.unlink(missing_ok=True)
        report = self.hoist("--requests", "1:4 KiB")
        self.direct = not any("direct I/O" in step for step in report["stepped_down"])

    def run_hoist(self):
        """One measurement of hoist."""
        flags = ["--block-size", self.mode.block, "--queue-depth", str(DEPTH)]
        if self.mode.requests:
            flags += ["--requests", self.mode.requests]
        else:
            flags += ["--rw", self.mode.job, "--seconds", str(self.arguments.seconds)]
        return Run.of_hoist(self.hoist(*flags))

    def run_fio(self, words):
        """One measurement of fio."""
        job = pathlib.Path(__file__).parent / f"{self.mode.job}.fio"
        # fio takes a colon for the end of a file's name.
        given = {
            "FILE": str(self.file.absolute()).replace(":", r"\:"),
            "SIZE": str(size_bytes(self.arguments.size)),
            "BLOCK": str(size_bytes(self.mode.block)),
            "DEPTH": str(DEPTH),
            "DIRECT": str(int(self.direct)),
            "TIME_BASED": str(int(not self.mode.requests)),
            # As much more as nobody waits for, where bytes end the run.
            "RUN_SECONDS": str(self.arguments.seconds * (60 if self.mode.requests else 1)),
            "IO_BYTES": str(self.mode.io_bytes() or size_bytes(self.arguments.size)),
        }
        environment = {**os.environ, **given, **words}
        call(["fio", "--output-format=json", f"--output={self.json}", job], env=environment)
        return Run.of_fio(json.loads(self.json.read_text())["jobs"][0])

    def best_of_fio(self):
        """fio's best variant."""
        # Asked for once: how many huge pages are free changes meanwhile.
        kinds = dict(variants(size_bytes(self.mode.block)))
        tries = {name: [] for name in kinds}
        for _ in range(self.arguments.tries):
            for name, words in kinds.items():
                tries[name].append(self.run_fio(words).rate)
        for name, rates in tries.items():
            print(f"  fio with {name}: {statistics.median(rates) / 1e9:.3f} GB/s")
        best = max(tries, key=lambda name: statistics.median(tries[name]))
        return best, kinds[best]

    def compare(self):
        """All of it, for one mode."""
        print(f"{self.name}, {self.mode.requests or self.mode.job}, blocks of {self.mode.block} x {DEPTH}, {self.arguments.size}")
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
            processor = f"; processor {hoist.cpu:.3f} and {fio.cpu:.3f} s a GiB" if self.direct else ""
            print(
                f"  pair {number + 1}: hoist {hoist.rate / 1e9:.3f} GB/s, fio {fio.rate / 1e9:.3f} GB/s, "
                f"{hoist.rate / fio.rate:.3f}{processor}"
            )
        print(f"{self.name}: hoist / fio ({name}): {describe([hoist.rate / fio.rate for hoist, fio in pairs])}")
        if self.direct and all(fio.cpu > 0 for _, fio in pairs):
            print(f"{self.name}: processor time, hoist / fio: {describe([hoist.cpu / fio.cpu for hoist, fio in pairs])}")


def main():
    """Reads the arguments and goes through the modes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", help="where the file is made, on the drive to measure")
    parser.add_argument("--hoist", default="target/release/hoist", help="the built command")
    parser.add_argument("--modes", default=",".join(MODES), help="which of %(default)s")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tries", type=int, default=TRIES, help="of each of fio's variants")
    parser.add_argument("--seconds", type=int, default=5, help="of each measurement")
    parser.add_argument("--size", type=checked_size, default="4 GiB", help="of the file: a whole number with KiB, MiB or GiB")
    arguments = parser.parse_args()
    modes = arguments.modes.split(",")
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        parser.error(f"--modes are {', '.join(MODES)}, and not {', '.join(unknown)}")
    if min(arguments.pairs, arguments.tries, arguments.seconds) < 1:
        parser.error("--pairs, --tries and --seconds are 1 at the least")
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

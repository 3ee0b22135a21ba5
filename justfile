# What is done often. `just` comes from crates.io (`cargo install just`); nothing needs it: each recipe
# is a line or two to type.

# Where cargo puts what it builds, and for which machine.
target := env("CARGO_TARGET_DIR", justfile_directory() / "target")
host := `rustc --print host-tuple`

# How libFuzzer sees what code was reached.
sancov := "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-pc-table"
coverage := sancov + " -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-trace-compares"

# A workspace of its own, as it needs another toolchain.
fuzz := justfile_directory() / "crates/hoist-format/fuzz"

# Lists the recipes.
default:
    @just --list

# Formatting and lints, as .ci/run has them.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Every test of the workspace.
test:
    cargo test --workspace

# The first run of the README: a small model through all three tiers.
bench *arguments:
    cargo run --release -- bench config/quickstart.toml {{ arguments }}

# fio and `hoist io` by turns over the same file in a directory: 4 GiB of disk, one to four minutes a mode.
peers-io directory *arguments:
    cargo build --release -p hoist-cli
    python3 config/fio/peers.py --hoist "${CARGO_TARGET_DIR:-target}/release/hoist" "{{ directory }}" {{ arguments }}

# A store over two drives of 600 and 200 MB/s, of which the first slows down: 3 GiB of disk, half a minute.
bench-spread directory:
    cargo bench -p hoist-store --bench two_drives -- "{{ directory }}"

# With one tensor a layer each has a run of its own: 8 GiB of disk then, and half a minute.
# A store of a million small tensors: create, commit, close, open, and the memory of each; 2 GiB of disk, seconds.
bench-tensors directory count="1000000" layer="200":
    cargo bench -p hoist-store --bench many_tensors -- "{{ directory }}" {{ count }} {{ layer }}

# What durable steps and snapshots cost, in pairs: 14 GiB of disk, five minutes.
bench-epochs directory pairs="15" mib="4096":
    cargo bench -p hoist --bench epochs -- "{{ directory }}" {{ pairs }} {{ mib }}

# A model of 1 GiB that is read where it lies, beside fio: 1 GiB of disk, two minutes.
bench-in-place directory pairs="15" layers="32":
    cargo bench -p hoist --bench in_place -- "{{ directory }}" {{ pairs }} {{ layers }}

# Needs rustup's nightly (`rustup toolchain install nightly`). Leaks are looked for in hoist-memory alone, as tests of
# hoist-io leak what a drive may still have; the one left out counts the process's memory, of which the sanitizer's is part.
# AddressSanitizer over the tests of the crates that hand memory to the kernel: four minutes on two cores.
asan:
    RUSTFLAGS=-Zsanitizer=address cargo +nightly test --target {{ host }} --target-dir {{ target }}/asan \
        -p hoist-memory --lib --tests -- --skip the_budget_is_rounded_down_and_never_passed
    ASAN_OPTIONS=detect_leaks=0 RUSTFLAGS=-Zsanitizer=address cargo +nightly test --target {{ host }} \
        --target-dir {{ target }}/asan -p hoist-io --lib --tests

# Needs `rustup component add --toolchain nightly miri rust-src`. What is left out asks the kernel for memory, or takes Miri
# minutes (checksums of hundreds of kilobytes, megabytes of journal, whole runs of the plan).
# Miri over what needs no kernel, the lock-free pages in 16 schedules: three minutes.
miri:
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-many-seeds=0..16" cargo +nightly miri test \
        --target-dir {{ target }}/miri -p hoist-memory --lib -- free_pages config
    PROPTEST_CASES=2 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --target-dir {{ target }}/miri \
        -p hoist-format --lib -- checks_as dtype a_later any_payload is_the_same lengths_from reads_what
    PROPTEST_CASES=2 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --target-dir {{ target }}/miri \
        -p hoist-plan --lib

# What fails says how it is repeated; more seeds and kills are arguments.
# Thousands of power cuts, 500 kills of a trainer, each byte of a manifest flipped: half an hour on two cores.
crash seeds="2000" kills="250":
    HOIST_SEEDS={{ seeds }} cargo test -p hoist-store --test crash
    HOIST_FLIPS=all cargo test -p hoist-store --test flips
    HOIST_KILLS={{ kills }} cargo test -p hoist-tests --test kill

# Needs rustup's nightly and a C++ compiler for libFuzzer; the flags are those of cargo-fuzz. What it finds it writes to a
# file `crash-…` in `fuzz` of where cargo builds; that file as the input runs it again.
# libFuzzer on the journal's decoder, a minute long.
fuzz seconds="60" input=(target / "fuzz/corpus"):
    cargo run -q --manifest-path {{ fuzz }}/Cargo.toml --target-dir {{ target }}/fuzz --bin seeds {{ target }}/fuzz/corpus
    RUSTFLAGS="-Zsanitizer=address --cfg fuzzing {{ coverage }}" cargo +nightly run -q --release --target {{ host }} \
        --manifest-path {{ fuzz }}/Cargo.toml --target-dir {{ target }}/fuzz --bin journal -- \
        -artifact_prefix={{ target }}/fuzz/ -malloc_limit_mb=64 -max_len=16384 -max_total_time={{ seconds }} {{ input }}

# The documentation of all crates; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Everything a change must pass.
ci:
    .ci/run

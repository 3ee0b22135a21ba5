# What is done often. `just` comes from crates.io (`cargo install just`); nothing needs it: each recipe
# is a line or two to type.

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

# fio and `hoist io` by turns over the same file in a directory: 4 GiB of disk, about four minutes a mode.
peers-io directory *arguments:
    cargo build --release -p hoist-cli
    python3 config/fio/peers.py --hoist "${CARGO_TARGET_DIR:-target}/release/hoist" "{{ directory }}" {{ arguments }}

# A store over two drives of 600 and 200 MB/s, of which the first slows down: 3 GiB of disk, half a minute.
bench-spread directory:
    cargo bench -p hoist-store --bench two_drives -- "{{ directory }}"

# The documentation of all crates; a broken link is an error.
doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Everything a change must pass.
ci:
    .ci/run

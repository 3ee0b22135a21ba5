//! Bandwidth against fio, by hand: `cargo test --release -p hoist-io --test io bandwidth -- --ignored --nocapture`.

use crate::common::{open_file, request};
use hoist_io::{BackendChoice, Config, FileRange, Priority, Transfer, Wait, open};
use hoist_memory::Slab;
use std::time::Instant;

const GIB: u64 = 1 << 30;
const REQUEST_BYTES: u64 = 8 << 20;

#[test]
#[ignore = "a measurement of minutes on a 1 GiB file; needs fio"]
fn reads_of_1_mib_blocks_32_deep() {
    let folder = tempfile::tempdir_in(std::env::var("HOIST_TEST_DIR").unwrap_or("/tmp".to_owned())).unwrap();
    let path = folder.path().join("data");
    let fio = |engine: &str, prepare: bool| {
        let mut command = std::process::Command::new("fio");
        command.args([
            "--name=data",
            "--rw=read",
            "--bs=1M",
            "--iodepth=32",
            "--direct=1",
            "--size=1G",
            "--minimal",
        ]);
        command.arg(format!("--filename={}", path.display())).arg(format!("--ioengine={engine}"));
        // The fairest that fio offers without reserved huge pages: memory registered with the ring, as ours is.
        command.args(["--fixedbufs=1", "--registerfiles=1"]);
        command.arg(if prepare { "--rw=write" } else { "--invalidate=1" });
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Field 7 of the terse output is the read bandwidth in KiB/s (fio(1)).
        text.split(';').nth(6).and_then(|kib| kib.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
    };
    fio("io_uring", true);
    for choice in [BackendChoice::Uring, BackendChoice::Pread] {
        let config = Config { backend: choice, ..Config::default() };
        let slab = Slab::map(&hoist_memory::Config { budget_bytes: 64 << 20, ..Default::default() }).unwrap();
        let mut backend = open(&config, &slab).unwrap();
        println!("{}\n{}", slab.obtained(), backend.obtained());
        let file = open_file(&mut *backend, &path);
        for turn in 0..6 {
            let fio_bytes_per_second = fio("io_uring", false);
            let start = Instant::now();
            let (mut next, mut back) = (0, 0);
            let mut done = Vec::new();
            while back < GIB / REQUEST_BYTES {
                while next < GIB / REQUEST_BYTES
                    && let Some(slot) = slab.allocate(REQUEST_BYTES)
                {
                    let range = FileRange {
                        file,
                        offset: next * REQUEST_BYTES,
                        bytes: REQUEST_BYTES,
                        buffer_offset: 0,
                    };
                    backend.push(request(next, Priority::Demand, vec![range], Transfer::Read(slot)));
                    next += 1;
                }
                backend.reap(Wait::UntilSomething, &mut done).unwrap();
                for completion in done.drain(..) {
                    completion.result.unwrap();
                    back += 1;
                }
            }
            let ours = GIB as f64 / start.elapsed().as_secs_f64();
            println!(
                "{choice:?} {turn}: {ours:.3e} B/s, fio {fio_bytes_per_second:.3e}, ratio {:.3}",
                ours / fio_bytes_per_second
            );
        }
    }
}

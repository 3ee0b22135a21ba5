//! Ctrl-C, at different times of a run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{CALL_MAX, SMALL, bench, binary, config, folder, number, report, run};

/// The command promises 2 s; the rest is for a machine that is busy with other tests.
const END_MAX: Duration = Duration::from_secs(5);

/// A run under way, ended when it is dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts a bench of a small model that takes more steps than anybody waits for, and keeps its store.
    pub fn bench(folder: &Path) -> Self {
        let long = ["device.budget=4 MiB", "host.budget=24 MiB", "run.steps=100000", "store.keep=true"];
        Self::start(folder, &bench(&config("quickstart.toml"), &[&SMALL[..], &long].concat()))
    }

    /// Starts the command with these arguments in `folder`.
    pub fn start(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .current_dir(folder)
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        // It ends with the process; what nobody reads any more is of no use.
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Waits until it says a line that begins so.
    pub fn wait_for(&mut self, begin: &str) {
        while !self.lines.recv_timeout(CALL_MAX).expect("the run says no more").starts_with(begin) {}
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Presses Ctrl-C and waits for the end, which must come soon and with status 1.
    pub fn interrupt(mut self) {
        let begin = Instant::now();
        kill_process(self.pid(), Signal::INT).unwrap();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begin.elapsed() < END_MAX, "still running: {:?}", self.lines.try_iter().last());
            sleep(Duration::from_millis(5));
        };
        println!("ended {:?} after Ctrl-C", begin.elapsed());
        assert_eq!(status.code(), Some(1), "{:?}", self.lines.iter().collect::<Vec<_>>());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves no process behind; one that has ended cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_interrupted_run_ends_soon_with_a_partial_report() {
    let folder = folder();
    let mut bench = Running::bench(folder.path());
    bench.wait_for("step 3 ");
    bench.interrupt();
    let report = report(folder.path());
    assert_eq!(report["partial"], true);
    assert!((2..100_000).contains(&number(&report, "/summary/steps")), "{report:#}");
    assert_eq!(number(&report, "/summary/mismatches"), 0);
    assert!(report["summary"]["bound_seconds"].as_f64().unwrap() > 0.0, "{report:#}");
    assert!(report["summary"]["efficiency"].as_f64().unwrap() > 0.0, "{report:#}");
    // The store is at its last epoch, and opens for another.
    assert!(run(folder.path(), &["verify", "hoist-quickstart"], 0).contains(" 0 bad"));
    assert!(!run(folder.path(), &["ls", "hoist-quickstart"], 0).contains("epoch 0"));
}

#[test]
fn a_run_that_has_hardly_begun_ends_soon_too() {
    for said in ["measuring the drive", "writing the model"] {
        let folder = folder();
        let mut bench = Running::bench(folder.path());
        bench.wait_for(said);
        bench.interrupt();
        let report = report(folder.path());
        assert_eq!(report["partial"], true, "{said}");
        assert_eq!(number(&report, "/summary/steps"), 0, "{said}");
        assert!(report["summary"]["step_seconds"].is_null(), "{said}: {report:#}");
    }
}

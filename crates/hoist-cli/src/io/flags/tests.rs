//! Flags, right and wrong.

use super::super::Call;
use super::*;

impl Given {
    /// These flags, by the names of their fields.
    pub fn of(flags: &[(&str, &str)]) -> Self {
        let mut given = Self::default();
        for (flag, text) in flags {
            let place = match *flag {
                "rw" => &mut given.rw,
                "size" => &mut given.size,
                "requests" => &mut given.requests,
                "block_size" => &mut given.block_size,
                "queue_depth" => &mut given.queue_depth,
                "backend" => &mut given.backend,
                "seconds" => &mut given.seconds,
                _ => panic!("no flag {flag}"),
            };
            *place = Some((*text).to_owned());
        }
        given
    }
}

fn problems(flags: &[(&str, &str)]) -> Vec<Problem> {
    Call::read(&[PathBuf::from(".")], &Given::of(flags), false).unwrap_err()
}

fn keys(flags: &[(&str, &str)]) -> Vec<String> {
    problems(flags).into_iter().map(|problem| problem.key).collect()
}

#[test]
fn requests_are_a_number_and_a_size() {
    let requests = |number, bytes, random| Some(Requests { number, bytes, random });
    assert_eq!(parse_requests("32:64 MiB"), requests(32, 64 << 20, false));
    assert_eq!(parse_requests("1 : 4KiB : random"), requests(1, 4096, true));
    let wrong = ["", "32", "0:4 KiB", "32:5000 B", "32:64", "32:4 KiB:seq", "3:4 KiB:random:x", "-1:4 KiB"];
    for text in wrong.into_iter().chain(["1048577:4 KiB", "1048576:16 TiB"]) {
        assert_eq!(parse_requests(text), None, "{text}");
    }
}

#[test]
fn all_mistakes_come_at_once() {
    let wrong = [
        ("rw", "reed"),
        ("size", "1000"),
        ("requests", "many"),
        ("block_size", "5 KB"),
        ("queue_depth", "0"),
        ("backend", "aio"),
        ("seconds", "-1"),
    ];
    let expected =
        ["--rw", "--backend", "--block-size", "--queue-depth", "--requests", "--size", "--seconds"];
    assert_eq!(keys(&wrong), expected);
    let problems = problems(&[("rw", "reed")]);
    assert!(problems[0].to_string().contains("read, write, mixed, randread, randwrite"), "{problems:?}");
}

#[test]
fn flags_that_do_not_go_together_are_mistakes() {
    assert_eq!(keys(&[("requests", "4:4 KiB"), ("seconds", "1")]), ["--seconds"]);
    assert_eq!(keys(&[("requests", "4:8 KiB"), ("size", "4 KiB")]), ["--size"]);
    assert_eq!(keys(&[("requests", "3:8 KiB"), ("rw", "mixed")]), ["--requests"]);
    assert_eq!(keys(&[("requests", "2:8 EiB")]), ["--requests"]);
    assert!(keys(&[("requests", "4:1 EiB")])[0].contains("--queue-depth"), "no machine has such memory");
    let here = PathBuf::from(".");
    let problems =
        Call::read(&[here.clone(), here, "/nowhere/at/all".into()], &Given::default(), false).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

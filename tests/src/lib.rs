//! Holds the end-to-end tests in `tests/`, and the tests of the code in README.md; nothing is built here.
#![forbid(unsafe_code)]

/// The README, whose code must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

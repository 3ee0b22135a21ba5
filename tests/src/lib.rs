//! Holds the end-to-end tests in `tests/`; nothing is built here.
#![forbid(unsafe_code)]

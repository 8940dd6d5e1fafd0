//! End to end: the real operator and command line against a real API server, folders and a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod cel;
mod cli;
mod fence;
mod process;
mod runs;
mod stores;
mod support;

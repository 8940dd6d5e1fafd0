//! End to end, and long: operators that are killed again and again, an API server that is away, policies by the thousand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod away;
mod crowds;
mod kills;
#[allow(dead_code, reason = "made for the end-to-end tests, which use all of it")]
#[path = "../e2e/support/mod.rs"]
mod support;

//! The real library and the real decisions against a store that fails in every way that stores do, with leaders that pause, crash and
//! come back, and two operators: in simulated time, by a seed.
//!
//! `EPOCHWARDEN_SEED=7 cargo test -p epochwarden-store --test simulation replay -- --nocapture` shows one run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod bucket;
mod leader;
mod lease;
mod operator;
mod oracle;
mod process;
mod run;
mod setup;
mod standby;
mod store;
mod tests;
mod trace;
mod world;

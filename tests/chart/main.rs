//! The Helm chart: what it makes, what it refuses, and what becomes of a cluster that it is installed in.
//!
//! Apart from the other end-to-end tests, because those measure how soon something happens, and the tools that are run here keep the
//! machine busy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod admission;
mod alerts;
mod dashboard;
mod helm;
mod manifests;
mod release;
mod rights;
#[allow(dead_code, reason = "made for the end-to-end tests, which use all of it")]
#[path = "../e2e/support/mod.rs"]
mod support;
mod values;

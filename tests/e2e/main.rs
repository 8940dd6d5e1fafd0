//! End to end: the real operator and command line against a real API server, folders and a real S3 server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod approval;
mod away;
mod bucket;
mod canary;
mod cel;
mod cli;
mod crashes;
mod docs;
mod fence;
mod image;
mod layouts;
mod leadership;
mod logs;
mod metrics;
mod numbered;
mod ownership;
mod process;
mod reasons;
mod regression;
mod runs;
mod stores;
mod support;
mod tenancy;
mod trust;
mod watched;

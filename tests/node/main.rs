//! On a real node, with real pods: `make e2e`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

mod kept;
mod pipeline;
mod pods;
mod release;
mod scene;
mod story;
mod tenant;
mod told;

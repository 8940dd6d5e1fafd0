//! What the library promises, over every kind of store: in memory, in a folder, on a real S3 server, on S3 in memory and on what Google
//! documents; with `make conformance` also on `MinIO` and on Azurite.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by failing"
)]

#[macro_use]
mod bucket;

mod assigned;
mod classic;
mod commit;
mod crashes;
mod exclusive;
mod fence;
mod large;
mod latest;
mod layout;
mod numbering;
mod owner;
mod probe;
mod prune;
mod prune_before;
mod races;
mod registers;
mod requests;
mod restore;

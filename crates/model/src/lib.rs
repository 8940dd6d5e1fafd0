//! The protocol on the bucket as models, searched state by state; for tests alone.
//!
//! A model is a state (the bucket, the processes, the requests under way) and every step that can be next. The checker, `stateright`,
//! takes every step from every state it reaches, so within its bounds it misses no order of events: a promise that holds in all of them
//! holds, and one that does not comes back with the shortest way to break it. Where the shipped code decides by a pure rule (the guard, the plan, the
//! fence, who sealed), the models ask that same rule of `epochwarden-core`; what they state anew is the order of requests.
//!
//! [`pipeline`] has the leaders that write, commit and restore, and the pruners. [`registers`] has those who publish, read and trim the
//! fence and the floor, and Leases that change hands. Each takes a mutation, one rule left out, and then has to
//! find the promise that breaks. [`search`] runs a model and puts the way to a state in words.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a model's bounds are its own, and a panic is a failed check"
)]

pub mod pipeline;
pub mod registers;
pub mod search;

pub use search::Words;

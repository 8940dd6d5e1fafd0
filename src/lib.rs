//! Epochwarden guards the state that stream processors checkpoint into an object store, epoch by epoch.
//!
//! # The model
//!
//! ```text
//!             one policy names one store root                     in the root
//!   ┌────────────────────────────────────────────┐   ┌────────────────────────────────────────┐
//!   │ StateEpochPolicy                           │   │ epoch={N}/vnode={V}/partial.bin   state │
//!   │   store      bucket, options, credentials  │   │ epoch={N}/_COMMIT                 seal  │
//!   │   fence      the leader's Lease            │   │ _epochwarden/fence/{version}            │
//!   │   retention  what to keep                  │   │ _epochwarden/floor/{epoch}              │
//!   │   prune      when to delete the rest       │   │ _epochwarden/owner/{n}                  │
//!   │   audit      when to look for damage       │   └────────────────────────────────────────┘
//!   └────────────────────────────────────────────┘
//! ```
//!
//! - **Fence**: the leader's assignment version, durable in the root. Every commit of a pipeline reads it before and after its seal, so a
//!   leader that was deposed without noticing is refused by the bucket.
//! - **Prune**: a plan with a reason for every epoch, then the floor, then the deletes. Never the newest sealed epoch.
//! - **Audit**: whether every sealed epoch is whole and was sealed by a leader.
//!
//! # The house
//!
//! The rules are in `epochwarden_core` and know neither input nor output. `epochwarden_store` knows one root, and is what pipelines link.
//! This crate is the operator and the command line: [`api`] is the resource, [`controller`] observes, decides and acts,
//! [`cli`] has a file per verb and runs the same functions as the controller, and [`server`] shows what is going on.

pub mod api;
pub mod cli;
pub mod controller;
pub mod server;

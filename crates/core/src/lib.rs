//! The rules of Epochwarden, as pure functions.
//!
//! Everything here takes what was read (listings, registers, Leases) and the time as arguments, and returns a decision together with
//! its reason. Nothing here performs input or output, reads a clock, or logs. The store asks these rules and does what they say; the
//! operator turns the same reasons into conditions, Events and metrics.
//!
//! The path of one epoch: [`key::Key`] parses what a listing shows, [`inventory::InventoryBuilder`] folds it, [`plan::Plan`] decides
//! with the rules of [`retention`], [`approval`] says whether that may be carried out or waits for a person, and [`finding`] says what
//! is wrong with it. [`numbering`] says which epochs a version may use, and how people see an epoch. [`register`] and [`guard`] are the
//! fence, the floor and the owner; [`lease`] turns a leader's Lease into the version of the fence; [`schedule`] says when a run is due,
//! and [`backlog`] whether runs keep up. [`election`] says which of several operators works.

pub mod approval;
pub mod backlog;
pub mod duration;
pub mod election;
pub mod epoch;
pub mod finding;
pub mod guard;
pub mod inventory;
pub mod key;
pub mod lease;
pub mod numbering;
pub mod plan;
pub mod register;
pub mod retention;
pub mod schedule;

pub use epoch::{Epoch, InstanceId, ParseError, Version, Vnode};
pub use numbering::{Numbering, ShownEpoch};

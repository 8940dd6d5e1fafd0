//! One bucket of state epochs: what pipelines link, and what the operator and the command line are made of.
//!
//! - [`root::Root`] is a location and its concrete clients; everything else takes one. [`observe`] counts what it is asked.
//! - [`backend`] is the state backend of a pipeline: writes, the guarded commit, restore, and the classic prune.
//! - [`registers`] reads and publishes the fence, the floor and the owner.
//! - [`listing`] streams a root into an inventory without holding its keys.
//! - [`prune`] and [`audit`] are the runs; they do what the rules of `epochwarden_core` say.
//! - [`probe`] tries what all of these rely on.
//!
//! Nothing here knows Kubernetes. [`crash`] is for tests. [`clock`] is the only place that asks for the wall clock.

pub mod audit;
pub mod backend;
pub mod clock;
pub mod crash;
mod create;
pub mod error;
mod http;
mod instance;
pub mod listing;
pub mod observe;
pub mod probe;
pub mod prune;
pub mod registers;
pub mod root;

pub use backend::{ObjectStoreBackend, ObjectStoreBackendBuilder, Restore, StateBackend};
pub use clock::{Clock, SystemClock};
pub use epochwarden_core::numbering::ShownEpoch;
pub use epochwarden_core::{InstanceId, Numbering};
pub use error::{ErrorClass, StateBackendError, StoreError};
pub use http::addresses::{AddressRules, AllowedHost, RefusedAddress};
pub use instance::UniqueInstanceId;
pub use listing::{check_layout, list_epoch, list_epochs, list_index, list_inventory, list_registers};
pub use observe::{Observer, Operation, Outcome, RequestCounter, RequestCounts};
pub use registers::{Owned, Published, Registers};
pub use root::{Capabilities, OPTION_KEYS, Root, RootSettings, SECRET_KEYS, ask_folder};

/// The code of the README is compiled, so that a newcomer can copy it.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

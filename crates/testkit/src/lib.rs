//! What the tests of Epochwarden stand on: real servers on the loopback interface, and waiting for conditions.
//!
//! Nothing here knows the operator or the store: they are what is tested.

#[cfg(feature = "cluster")]
pub mod apiserver;
pub mod azurite;
pub mod counter;
pub mod fault;
pub mod memory;
pub mod minio;
#[cfg(feature = "cluster")]
pub mod node;
mod ports;
pub mod process;
pub mod proxy;
pub mod s3server;
mod tls;
pub mod tools;
pub mod wait;
mod watchdog;

pub use watchdog::temp_dir;

//! The state of one vnode: how many events it has seen.

use bytes::Bytes;
use serde::Deserialize;

/// What the worker of a vnode keeps, and what its partial holds.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Counter {
    events: u64,
}

impl Counter {
    /// Takes in the events since the last epoch.
    pub(crate) fn count_events(&mut self) {
        self.events += 100;
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from(format!(r#"{{"events":{}}}"#, self.events))
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> anyhow::Result<Self> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

//! The ways to the API server.

use kube::Client;

/// Clients of one API server, each with connections of its own. When the network swallows what was sent, every connection that is open then
/// stays silent for minutes, also one that waits in a pool for its next use.
#[derive(Clone)]
pub struct Clients {
    /// For all that has no other.
    pub usual: Client,
    /// Keeps no connection: asks where the usual one gets no answer.
    pub afresh: Client,
    /// For the watch of Leases alone: no request of another's leaves a connection that the watch would take up, so it begins over a new one
    /// when the one before has fallen silent.
    pub watching: Client,
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    /// One for everything.
    #[cfg(test)]
    pub(crate) fn all_in_one(client: &Client) -> Self {
        Self { usual: client.clone(), afresh: client.clone(), watching: client.clone() }
    }
}

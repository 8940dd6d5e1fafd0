//! The policy as a whole: what follows from its store and its registers, and how kstatus reads it.

use super::{Ready, Reconciling, Stalled, StoreReady};

impl Ready {
    /// The policy as a whole, from its store and its registers. A lost register outweighs what may become better by itself.
    #[must_use]
    pub const fn of(store: StoreReady, register_lost: bool) -> Self {
        let ready = Self::of_store(store);
        if register_lost && ready.stalled().is_none() { Self::RegisterLost } else { ready }
    }

    const fn of_store(store: StoreReady) -> Self {
        match store {
            StoreReady::Reachable => Self::Reachable,
            StoreReady::Pending => Self::Pending,
            StoreReady::Unreachable => Self::Unreachable,
            StoreReady::BucketNotFound => Self::BucketNotFound,
            StoreReady::AccessDenied => Self::AccessDenied,
            StoreReady::SecretNotFound => Self::SecretNotFound,
            StoreReady::InvalidConfiguration => Self::InvalidConfiguration,
            StoreReady::CredentialsNotAllowed => Self::CredentialsNotAllowed,
            StoreReady::UnsafeStore => Self::UnsafeStore,
            StoreReady::RootConflict => Self::RootConflict,
            StoreReady::UnknownLayout => Self::UnknownLayout,
        }
    }

    /// Whether a person has to do something.
    #[must_use]
    pub const fn stalled(self) -> Option<Stalled> {
        match self {
            Self::InvalidConfiguration => Some(Stalled::InvalidConfiguration),
            Self::CredentialsNotAllowed => Some(Stalled::CredentialsNotAllowed),
            Self::UnsafeStore => Some(Stalled::UnsafeStore),
            Self::RootConflict => Some(Stalled::RootConflict),
            Self::UnknownLayout => Some(Stalled::UnknownLayout),
            Self::RegisterLost => Some(Stalled::RegisterLost),
            Self::Reachable
            | Self::Pending
            | Self::Unreachable
            | Self::BucketNotFound
            | Self::AccessDenied
            | Self::SecretNotFound => None,
        }
    }

    /// Whether it may become better by itself.
    #[must_use]
    pub const fn reconciling(self) -> Option<Reconciling> {
        match self {
            Self::Unreachable => Some(Reconciling::Unreachable),
            Self::SecretNotFound => Some(Reconciling::SecretNotFound),
            Self::Pending => Some(Reconciling::Pending),
            Self::Reachable
            | Self::BucketNotFound
            | Self::AccessDenied
            | Self::InvalidConfiguration
            | Self::CredentialsNotAllowed
            | Self::UnsafeStore
            | Self::RootConflict
            | Self::UnknownLayout
            | Self::RegisterLost => None,
        }
    }
}

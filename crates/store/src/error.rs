//! What can go wrong with a store: one enum for the operator's side, one for pipelines.

use epochwarden_core::numbering::VersionOutOfRange;
use epochwarden_core::register::RegisterLost;
use thiserror::Error;

use crate::http::NoListing;
use crate::observe::Operation;

pub(crate) mod cause;
mod state_backend;

pub use state_backend::StateBackendError;

/// What a failure means for whoever has to act on it. It becomes the reason of a condition and the exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// The object is not there.
    NotFound,
    /// The bucket, container or folder is not there.
    BucketNotFound,
    /// The credentials were refused, or do not suffice.
    AccessDenied,
    /// The store does not answer, not in time, or with an error of its own: it is worth trying again.
    Unreachable,
    /// The URL, an option or a credential's form is wrong: trying again changes nothing.
    InvalidConfiguration,
    /// No credentials were given, and using the environment's is not allowed.
    CredentialsNotAllowed,
    /// Another writer was at the same object.
    Conflict,
    /// The outcome of a write is not known.
    OutcomeUnknown,
    /// Another policy owns the root.
    RootConflict,
    /// The fence names another holder.
    FenceConflict,
    /// A register reads lower than it was seen.
    RegisterLost,
    /// The root shows a layout that this version does not know.
    UnknownLayout,
    /// A listing cannot be completed because of a key that cannot be addressed.
    UnaddressableKey,
    /// The store answers in a way that it should not.
    UnsafeStore,
    /// Anything else.
    Other,
}

impl ErrorClass {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::BucketNotFound => "BucketNotFound",
            Self::AccessDenied => "AccessDenied",
            Self::Unreachable => "Unreachable",
            Self::InvalidConfiguration => "InvalidConfiguration",
            Self::CredentialsNotAllowed => "CredentialsNotAllowed",
            Self::Conflict => "Conflict",
            Self::OutcomeUnknown => "OutcomeUnknown",
            Self::RootConflict => "RootConflict",
            Self::FenceConflict => "FenceConflict",
            Self::RegisterLost => "RegisterLost",
            Self::UnknownLayout => "UnknownLayout",
            Self::UnaddressableKey => "UnaddressableKey",
            Self::UnsafeStore => "UnsafeStore",
            Self::Other => "Other",
        }
    }
}

/// Why something could not be done with a store root. No message holds a credential.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The URL cannot name a store root.
    #[error("store URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL, without what may be a password.
        url: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// An option that no store of this kind has, or that is not allowed.
    #[error("store option {key:?} is not an option of {provider}: remove it; {provider} takes {}", allowed.join(", "))]
    UnknownOption {
        /// The option.
        key: String,
        /// The kind of store.
        provider: &'static str,
        /// The options that it has.
        allowed: Vec<&'static str>,
    },
    /// An option whose value makes no sense.
    #[error("store option {key:?}: {reason}")]
    InvalidOption {
        /// The option.
        key: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// The certificates of the store's authority are none.
    #[error("the CA of the store cannot be used: {reason}; give it as PEM, one certificate or several after another")]
    InvalidCa {
        /// What is wrong.
        reason: String,
    },
    /// No credentials were given, and nothing allows to look for them in the environment.
    #[error(
        "no credentials for {url}: give {needed}; credentials of the environment are not used here unless they are allowed"
    )]
    CredentialsNotAllowed {
        /// The root.
        url: String,
        /// The keys that would do.
        needed: &'static str,
    },
    /// The clients could not be made from the URL and the options.
    #[error("cannot make a client for {url}: {}; correct the options or the credentials", cause::plain(source))]
    Client {
        /// The root.
        url: String,
        /// The failure.
        source: object_store::Error,
    },
    /// The folder of a `file://` root is not there.
    #[error("the folder of {url} cannot be used: {source}; create it, or correct the URL")]
    Folder {
        /// The root.
        url: String,
        /// The failure.
        source: std::io::Error,
    },
    /// A request failed, after its retries.
    #[error("cannot {operation} {location}: {}", cause::describe(source))]
    Request {
        /// What was asked.
        operation: Operation,
        /// Root and key.
        location: String,
        /// The failure.
        source: object_store::Error,
    },
    /// A key that no request can name stands in the way of the listing.
    #[error(
        "the key {key:?} cannot be addressed (an empty segment, \".\", \"..\" or a control character), so the root cannot be listed: \
         remove or rename it with the store's own tools"
    )]
    UnaddressableKey {
        /// The key.
        key: String,
    },
    /// A store repeats the token of a page: its listing has no end.
    #[error(
        "the listing of {location} repeats a page without end; the store pages wrongly, use one that lists as S3 does"
    )]
    ListingLoops {
        /// Root and prefix.
        location: String,
    },
    /// A register reads lower than it was seen.
    #[error(transparent)]
    RegisterLost(#[from] RegisterLost),
    /// The fence already stands at this version for somebody else.
    #[error(
        "version {version} of the fence belongs to {}: a version belongs to one process start; take the next one",
        holder.as_deref().unwrap_or("a holder whose record cannot be read")
    )]
    FenceConflict {
        /// The version.
        version: u64,
        /// Its holder, where the record can be read.
        holder: Option<String>,
    },
    /// Another policy owns the root.
    #[error("this root is owned by {owner}: nothing is written to it; give every policy a root of its own")]
    RootConflict {
        /// The owner, as far as its record says.
        owner: String,
    },
    /// The root shows a newer layout.
    #[error("the key {key:?} belongs to a newer layout than this version knows: the whole root is left alone; upgrade")]
    NewerLayout {
        /// The first such key.
        key: String,
    },
    /// A create was answered neither yes nor no, and reading back settled nothing.
    #[error(
        "whether {location} was written is not known after {attempts} attempts; {}",
        cause::unsettled(source.as_ref())
    )]
    OutcomeUnknown {
        /// Root and key.
        location: String,
        /// How often it was tried.
        attempts: u32,
        /// The last failure, unless the store answered and shows nothing.
        source: Option<object_store::Error>,
    },
    /// A record's body is not what it should be.
    #[error("the body of {location} is not a record: {source}; restore it, or remove it where a higher one stands")]
    UnreadableRecord {
        /// Root and key.
        location: String,
        /// The failure.
        source: serde_json::Error,
    },
    /// A version that may not be published.
    #[error("{0}; 0 would mean that the fence is off")]
    InvalidVersion(#[from] VersionOutOfRange),
}

impl StoreError {
    /// What it means for whoever has to act on it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::InvalidUrl { .. }
            | Self::UnknownOption { .. }
            | Self::InvalidOption { .. }
            | Self::InvalidCa { .. }
            | Self::Client { .. }
            | Self::InvalidVersion(_) => ErrorClass::InvalidConfiguration,
            Self::CredentialsNotAllowed { .. } => ErrorClass::CredentialsNotAllowed,
            Self::Folder { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => ErrorClass::BucketNotFound,
                std::io::ErrorKind::PermissionDenied => ErrorClass::AccessDenied,
                std::io::ErrorKind::NotADirectory => ErrorClass::InvalidConfiguration,
                _ => ErrorClass::Unreachable,
            },
            // A listing names no object, so what is not found is the bucket.
            Self::Request { operation, source, .. } => match (operation, cause::class(source)) {
                (Operation::List, ErrorClass::NotFound) => ErrorClass::BucketNotFound,
                (_, class) => class,
            },
            Self::UnaddressableKey { .. } => ErrorClass::UnaddressableKey,
            Self::ListingLoops { .. } => ErrorClass::UnsafeStore,
            Self::UnreadableRecord { .. } => ErrorClass::Other,
            Self::RegisterLost(_) => ErrorClass::RegisterLost,
            Self::FenceConflict { .. } => ErrorClass::FenceConflict,
            Self::RootConflict { .. } => ErrorClass::RootConflict,
            Self::NewerLayout { .. } => ErrorClass::UnknownLayout,
            Self::OutcomeUnknown { .. } => ErrorClass::OutcomeUnknown,
        }
    }

    /// A failed request; an unaddressable key is told apart, and a listing without end.
    pub(crate) fn request(operation: Operation, location: String, source: object_store::Error) -> Self {
        if NoListing::of(&source) == Some(NoListing::SameToken) {
            return Self::ListingLoops { location };
        }
        match cause::unaddressable(&source) {
            Some(key) => Self::UnaddressableKey { key },
            None => Self::Request { operation, location, source },
        }
    }
}

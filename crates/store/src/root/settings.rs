//! How the clients of a root behave.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::RetryConfig;

use super::options;
use crate::error::StoreError;
use crate::http::addresses::AddressRules;
use crate::http::{Reach, Timeouts, Trust};
use crate::observe::Observer;

/// How a root's clients behave.
#[derive(Clone)]
pub struct RootSettings {
    /// Whether the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) is read, and the machine's own credentials (files, metadata services)
    /// may be used where none are given. Off by default: then nothing but the options counts.
    pub ambient_credentials: bool,
    /// The longest time for one request, body included; the option `timeout` may only shorten it. `None`: the option, else 30 s.
    pub timeout: Option<Duration>,
    /// The longest time for one connection to be made; likewise with `connect_timeout`. `None`: the option, else 5 s.
    pub connect_timeout: Option<Duration>,
    /// How often a request is tried again at most. `None`: 10 times.
    pub max_retries: Option<usize>,
    /// After which time no further retry starts. `None`: 3 minutes.
    pub retry_timeout: Option<Duration>,
    /// Which addresses connections may be made to. Where the environment's credentials are used, the connections that fetch them are
    /// exempt: they may reach a metadata service.
    pub addresses: AddressRules,
    /// Certificates of authorities, as PEM, that are trusted beside the system's. The system's are read once in a process.
    pub ca: Vec<String>,
    /// Is told of every attempt.
    pub observer: Arc<dyn Observer>,
}

impl RootSettings {
    /// The settings of the path that publishes fences: an answer within 2 s, one retry.
    #[must_use]
    pub fn for_fence(self) -> Self {
        let two_seconds = Some(Duration::from_secs(2));
        Self {
            timeout: two_seconds,
            connect_timeout: two_seconds,
            max_retries: Some(1),
            retry_timeout: two_seconds,
            ..self
        }
    }

    pub(super) fn timeouts(&self, options: &options::Options) -> Result<Timeouts, StoreError> {
        let pick = |option: Option<Duration>, setting: Option<Duration>, default: u64| match (option, setting) {
            (Some(option), Some(setting)) => option.min(setting),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Duration::from_secs(default),
        };
        Ok(Timeouts {
            request: pick(options.duration("timeout")?, self.timeout, 30),
            connect: pick(options.duration("connect_timeout")?, self.connect_timeout, 5),
        })
    }

    pub(super) fn reach(&self) -> Result<Reach, StoreError> {
        Ok(Reach { addresses: self.addresses.clone(), ambient: self.ambient_credentials, trust: Trust::of(&self.ca)? })
    }

    pub(super) fn retry(&self) -> RetryConfig {
        let default = RetryConfig::default();
        RetryConfig {
            max_retries: self.max_retries.unwrap_or(default.max_retries),
            retry_timeout: self.retry_timeout.unwrap_or(default.retry_timeout),
            ..default
        }
    }
}

impl Default for RootSettings {
    fn default() -> Self {
        Self {
            ambient_credentials: false,
            timeout: None,
            connect_timeout: None,
            max_retries: None,
            retry_timeout: None,
            addresses: AddressRules::default(),
            ca: Vec::new(),
            observer: Arc::new(()),
        }
    }
}

impl fmt::Debug for RootSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootSettings")
            .field("ambient_credentials", &self.ambient_credentials)
            .field("timeout", &self.timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_retries", &self.max_retries)
            .field("retry_timeout", &self.retry_timeout)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

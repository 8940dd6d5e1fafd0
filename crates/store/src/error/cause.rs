//! Reads an [`object_store::Error`]: what it means, and how to say it without showing what a server may have repeated.

use std::error::Error;
use std::fmt::Write;

use object_store::client::{HttpError, HttpErrorKind};

use super::ErrorClass;
use crate::http::{NoListing, Unsent, innermost};

/// How the crate words a refused request: the only place where a listing's HTTP status can be had.
const REFUSED: &str = "Server returned non-2xx status code: ";
/// How it words a success whose body holds an error.
const FAILED_INSIDE: &str = "Server returned error response: ";
/// How it words a redirect to nowhere.
const REDIRECTED: &str = "Received redirect without LOCATION";

/// The codes that are about the credentials, whatever status they come with: versitygw answers an unknown user with 404.
const UNKNOWN_CREDENTIALS: &[&str] =
    &["ExpiredToken", "InvalidToken", "InvalidAccessKeyId", "TokenRefreshRequired", "XAdminUserNotFound"];

/// What is known about a failed request.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cause {
    status: Option<u16>,
    code: Option<String>,
    message: Option<String>,
    transport: Option<HttpErrorKind>,
    unsent: Option<Unsent>,
    no_listing: Option<NoListing>,
}

impl Cause {
    fn of(error: &object_store::Error) -> Self {
        let mut cause = Self { unsent: Unsent::of(error), no_listing: NoListing::of(error), ..Self::default() };
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(link) = next {
            if let Some(error) = link.downcast_ref::<HttpError>() {
                cause.transport.get_or_insert(error.kind());
            }
            if cause.status.is_none() && cause.transport.is_none() {
                cause.read(&link.to_string());
            }
            next = link.source();
        }
        if cause.status.is_none() {
            cause.status = match error {
                object_store::Error::Unauthenticated { .. } => Some(401),
                object_store::Error::PermissionDenied { .. } => Some(403),
                _ => None,
            };
        }
        cause
    }

    /// Takes what one link of the chain says when it is the answer itself.
    fn read(&mut self, text: &str) {
        let (status, body) = if let Some(answer) = text.strip_prefix(REFUSED) {
            let digits = answer.split(' ').next().unwrap_or_default();
            (digits.parse().ok(), answer)
        } else if let Some(body) = text.strip_prefix(FAILED_INSIDE) {
            (Some(500), body)
        } else if text.starts_with(REDIRECTED) {
            (Some(301), "")
        } else {
            return;
        };
        self.status = status;
        self.code = element(body, "Code").map(str::to_owned);
        self.message = element(body, "Message").map(str::to_owned);
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    fn class(&self) -> Option<ErrorClass> {
        if let Some(unsent) = &self.unsent {
            return Some(unsent.class());
        }
        if let Some(no_listing) = self.no_listing {
            return Some(no_listing.class());
        }
        if self.has_code(&["NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"]) {
            return Some(ErrorClass::BucketNotFound);
        }
        if self.has_code(UNKNOWN_CREDENTIALS) {
            return Some(ErrorClass::AccessDenied);
        }
        match (self.status, self.transport) {
            (Some(401 | 403), _) => Some(ErrorClass::AccessDenied),
            (Some(404), _) => Some(ErrorClass::NotFound),
            (Some(409 | 412), _) => Some(ErrorClass::Conflict),
            (Some(408 | 429 | 500..), _) => Some(ErrorClass::Unreachable),
            (Some(300..500), _) => Some(ErrorClass::InvalidConfiguration),
            (None, Some(HttpErrorKind::Decode)) => Some(ErrorClass::Other),
            (None, Some(_)) => Some(ErrorClass::Unreachable),
            (Some(_) | None, _) => None,
        }
    }
}

/// The text of an element in an error's XML, cut short.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.lines().next().unwrap_or_default();
    let end = text.char_indices().nth(300).map_or(text.len(), |(index, _)| index);
    text.get(..end).filter(|text| !text.is_empty())
}

/// What a failure means.
pub(crate) fn class(error: &object_store::Error) -> ErrorClass {
    let cause = Cause::of(error);
    match error {
        object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
            ErrorClass::AccessDenied
        }
        object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => ErrorClass::Conflict,
        object_store::Error::UnknownConfigurationKey { .. } => ErrorClass::InvalidConfiguration,
        object_store::Error::InvalidPath { .. } => ErrorClass::UnaddressableKey,
        object_store::Error::NotFound { .. } => cause.class().unwrap_or(ErrorClass::NotFound),
        _ => cause.class().or_else(|| io_class(error)).unwrap_or(ErrorClass::Other),
    }
}

/// What the machine says about a local folder.
fn io(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        if let Some(error) = link.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        next = link.source();
    }
    None
}

/// A local folder's failures.
fn io_class(error: &object_store::Error) -> Option<ErrorClass> {
    io(error).map(|kind| match kind {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => ErrorClass::AccessDenied,
        std::io::ErrorKind::NotFound => ErrorClass::NotFound,
        _ => ErrorClass::Unreachable,
    })
}

/// What to do about a local folder.
fn io_advice(kind: std::io::ErrorKind) -> Option<&'static str> {
    match kind {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            Some("make the folder readable and writable for this process")
        }
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Some("make room on its disk; it is tried again")
        }
        std::io::ErrorKind::NotFound => None,
        _ => Some("check the folder and its disk; it is tried again"),
    }
}

/// The key that made a listing fail, when it was one that no request can name.
pub(crate) fn unaddressable(error: &object_store::Error) -> Option<String> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(link) = next {
        match link.downcast_ref::<object_store::path::Error>() {
            Some(
                object_store::path::Error::EmptySegment { path }
                | object_store::path::Error::BadSegment { path, .. }
                | object_store::path::Error::NonUnicode { path, .. },
            ) => return Some(path.clone()),
            Some(other) => return Some(other.to_string()),
            None => next = link.source(),
        }
    }
    None
}

/// Whether an answer says by its code that there is no such key.
pub(crate) fn names_missing_key(error: &object_store::Error) -> bool {
    Cause::of(error).has_code(&["NoSuchKey"])
}

/// Whether the store may be saying that it has no such request. It may also be about something else in it.
pub(crate) fn unsupported(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. })
        || matches!(Cause::of(error).status, Some(400 | 405 | 501))
}

/// Whether the store asks for fewer requests: by a status, or by what it says of one key in the answer to a request for many.
pub(crate) fn throttled(error: &object_store::Error) -> bool {
    let cause = Cause::of(error);
    let code = |code: &str| {
        matches!(code, "SlowDown" | "ServiceUnavailable" | "RequestLimitExceeded" | "ServerBusy" | "503" | "429")
    };
    let of_one_key = || {
        let text = innermost(error);
        text.rsplit_once("(code: ").and_then(|(_, rest)| rest.strip_suffix(')')).is_some_and(code)
    };
    matches!(cause.status, Some(429 | 503)) || cause.code.as_deref().is_some_and(code) || of_one_key()
}

/// Whether the store refuses because the bucket keeps its objects under a lock or for a time.
pub(crate) fn locked(error: &object_store::Error) -> bool {
    let text = plain(error).to_ascii_lowercase();
    ["object lock", "objectlock", "worm protected", "retention", "legal hold", "immutable"]
        .iter()
        .any(|word| text.contains(word))
}

/// What happened and what to do, in one sentence.
pub(crate) fn describe(error: &object_store::Error) -> String {
    if let Some(reason) = complete(error) {
        return reason;
    }
    let local = Cause::of(error).class().is_none().then(|| io(error)).flatten();
    if let Some(advice) = local.and_then(io_advice) {
        return format!("{}; {advice}", plain(error));
    }
    let advice = match class(error) {
        ErrorClass::AccessDenied => "check the credentials and what their policy allows on this root",
        ErrorClass::BucketNotFound => "the bucket does not exist: create it, or correct the URL",
        ErrorClass::Unreachable => {
            "the store cannot be reached or fails: check the endpoint and the network; it is tried again"
        }
        ErrorClass::InvalidConfiguration => "check the URL, the endpoint and the region",
        ErrorClass::NotFound => "it is not there",
        ErrorClass::Conflict => "another writer was there first",
        _ => "see the store's own logs",
    };
    format!("{}; {advice}", plain(error))
}

/// The reasons that say by themselves what to do.
fn complete(error: &object_store::Error) -> Option<String> {
    let unsent = Unsent::of(error).map(|unsent| unsent.to_string());
    unsent.or_else(|| NoListing::of(error).map(|reason| reason.to_string()))
}

/// The last answer to a write whose outcome nothing has settled, and what to do.
pub(crate) fn unsettled(last: Option<&object_store::Error>) -> String {
    match last {
        None => "try again".to_owned(),
        Some(error) if class(error) == ErrorClass::Conflict => {
            format!("the last one: {}, and there is nothing to be read; try again", plain(error))
        }
        Some(error) => format!("the last one: {}", describe(error)),
    }
}

/// What happened: the status and the store's own code and message where there are any.
pub(crate) fn plain(error: &object_store::Error) -> String {
    if let Some(reason) = complete(error) {
        return reason;
    }
    let cause = Cause::of(error);
    let mut text = String::new();
    if let Some(status) = cause.status {
        let _ = write!(text, "HTTP {status}");
        if let Some(code) = &cause.code {
            let _ = write!(text, " {code}");
        }
        if let Some(message) = &cause.message {
            let _ = write!(text, " ({message})");
        }
        if cause.code.is_none() && matches!(status, 300..400) {
            text.push_str(" (a redirect, which is not followed)");
        }
        return text;
    }
    match cause.transport {
        Some(HttpErrorKind::Timeout) => "no answer in time".to_owned(),
        Some(HttpErrorKind::Connect) => format!("no connection ({})", innermost(error)),
        Some(_) => format!("the connection broke ({})", innermost(error)),
        None => innermost(error),
    }
}

#[cfg(test)]
mod tests;

//! Why a request was not sent, where that is known better than "no connection": for reasons that another try does not remove.

use std::error::Error;

use object_store::client::{HttpError, HttpErrorKind};
use rustls::CertificateError;
use thiserror::Error;

use super::addresses::Forbidden;
use crate::error::ErrorClass;

/// Why a request was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unsent {
    /// It would have been plain HTTP.
    #[error("the endpoint is plain http://, which is not allowed: use https://, or set allow_http to true")]
    PlainHttp,
    /// Where it goes cannot be told.
    #[error("{url:?} is no URL of an endpoint ({reason}): correct the endpoint")]
    NoUrl {
        /// Scheme and host.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Its address may not be reached.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The client could not be made.
    #[error("no connection can be set up on this machine: {0}")]
    NoClient(String),
    /// Nobody that is trusted has signed the endpoint's certificate.
    #[error(
        "the endpoint's certificate is not signed by a known authority: give the certificate of its authority in spec.store.ca, or \
         among the certificates that this machine trusts"
    )]
    UnknownAuthority,
    /// The certificate belongs to another host.
    #[error(
        "the endpoint's certificate is for another host ({0}): correct the endpoint, or give the server a certificate with this name"
    )]
    OtherName(String),
    /// The certificate cannot be used, now or at all.
    #[error("the endpoint's certificate {0}: renew or replace it")]
    BadCertificate(String),
    /// What answered does not speak TLS.
    #[error("the endpoint does not answer with TLS: check its port, or whether it is plain http://")]
    NoTls,
}

impl Unsent {
    /// What it means for whoever has to act on it.
    pub(crate) fn class(&self) -> ErrorClass {
        match self {
            // Somebody at the store's side has to act, and then it works again as it is.
            Self::BadCertificate(_) | Self::NoTls => ErrorClass::Unreachable,
            _ => ErrorClass::InvalidConfiguration,
        }
    }

    /// The reason that stands somewhere below an error.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(link) = next {
            if let Some(unsent) = link.downcast_ref::<Self>() {
                return Some(unsent.clone());
            }
            if let Some(forbidden) = link.downcast_ref::<Forbidden>() {
                return Some(forbidden.clone().into());
            }
            if let Some(tls) = link.downcast_ref::<rustls::Error>() {
                return Self::of_tls(tls);
            }
            next = match link.downcast_ref::<std::io::Error>() {
                // The source of such an error is the source of what it holds.
                Some(error) => error.get_ref().map(|held| held as &(dyn Error + 'static)),
                None => link.source(),
            };
        }
        None
    }

    fn of_tls(error: &rustls::Error) -> Option<Self> {
        match error {
            // A signature that does not fit is that of another authority of the same name: of one that was made anew.
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                Some(Self::UnknownAuthority)
            }
            rustls::Error::InvalidCertificate(
                reason @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
            ) => Some(Self::OtherName(reason.to_string())),
            rustls::Error::InvalidCertificate(reason) => Some(Self::BadCertificate(match reason {
                // Their own texts hold the time of the check, and a message that changes with every try is news with every try.
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "is not valid yet".to_owned()
                }
                reason => format!("cannot be accepted ({reason})"),
            })),
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Some(Self::NoTls),
            _ => None,
        }
    }
}

impl From<Unsent> for HttpError {
    fn from(unsent: Unsent) -> Self {
        // Of this kind none is tried again.
        Self::new(HttpErrorKind::Unknown, unsent)
    }
}

//! Whose certificates a root's connections trust: those of the system's authorities, and of the policy's own.
//!
//! The system's are read once for the whole process, as they are many and roots are, too.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::error::StoreError;

/// How many TLS sessions a root with authorities of its own remembers. It has one endpoint, and another for its credentials at most.
const SESSIONS: usize = 8;

/// Whom a root trusts. The default is the system's authorities.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trust {
    own: Option<Arc<WebPkiServerVerifier>>,
}

impl Trust {
    /// The system's authorities and those of PEM bundles, each of which must hold one. What else a bundle holds is left out.
    pub(crate) fn of(bundles: &[String]) -> Result<Self, StoreError> {
        let mut own = RootCertStore::empty();
        for bundle in bundles {
            let before = own.len();
            for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
                let certificate = certificate.map_err(|error| unusable(&format!("it is not PEM: {error}")))?;
                own.add(certificate).map_err(|error| unusable(&error.to_string()))?;
            }
            if own.len() == before {
                return Err(unusable("it holds no certificate"));
            }
        }
        if own.is_empty() {
            return Ok(Self::default());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(own), Arc::clone(&SYSTEM.provider)).build();
        Ok(Self { own: Some(verifier.map_err(|error| unusable(&error.to_string()))?) })
    }

    /// The side of a client that is about TLS.
    pub(super) fn config(&self) -> Result<ClientConfig, Error> {
        let Some(own) = &self.own else {
            return SYSTEM.config.clone();
        };
        let trusted = Trusted { own: Arc::clone(own), system: SYSTEM.verifier.clone() };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&SYSTEM.provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(trusted))
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(config)
    }
}

const HTTP_1_1: &[u8] = b"http/1.1";

fn unusable(reason: &str) -> StoreError {
    StoreError::InvalidCa { reason: reason.to_owned() }
}

/// What all roots share.
struct System {
    provider: Arc<CryptoProvider>,
    config: Result<ClientConfig, Error>,
    /// Absent where the machine has no authorities.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

static SYSTEM: LazyLock<System> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of this machine's certificates of authorities cannot be read");
    }
    let mut authorities = RootCertStore::empty();
    let (_, ignored) = authorities.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "some of this machine's certificates of authorities cannot be used");
    }
    let authorities = Arc::new(authorities);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let config = config.map(|config| {
        let mut config = config.with_root_certificates(Arc::clone(&authorities)).with_no_client_auth();
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        config
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(authorities, Arc::clone(&provider)).build().ok();
    System { provider, config, verifier }
});

/// Trusts what one of two sets of authorities has signed.
#[derive(Debug)]
struct Trusted {
    own: Arc<WebPkiServerVerifier>,
    system: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ask = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(certificate, intermediates, server, ocsp_response, now)
        };
        ask(&self.own).or_else(|first| match self.system.as_deref().map(ask) {
            // Of two refusals, the one from whoever knows the issuer says more.
            None | Some(Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))) => Err(first),
            Some(answer) => answer,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.own.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.own.supported_verify_schemes()
    }
}

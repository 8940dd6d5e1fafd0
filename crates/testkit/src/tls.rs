//! Private authorities, as large organisations have one: who trusts it trusts the server, and nobody else does.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

/// A certificate for 127.0.0.1 and localhost, its key, and the authority that signed it, each as PEM.
pub(crate) struct Certified {
    pub(crate) certificate: String,
    pub(crate) key: String,
    pub(crate) authority: String,
}

/// A new authority, and a server's certificate signed by it. The authority's key is thrown away.
pub(crate) fn certify() -> anyhow::Result<Certified> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "a private authority");
    let authority_pem = authority.self_signed(&authority_key)?.pem();

    let key = KeyPair::generate()?;
    let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    let certificate = server.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    Ok(Certified { certificate, key: key.serialize_pem(), authority: authority_pem })
}

/// Makes connections to servers for which one of the certificates in `pem` vouches, and to no others.
pub(crate) fn trusting(pem: &str) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|error| anyhow::anyhow!("a certificate that is no PEM: {error:?}"))?;
        roots.add(certificate).context("a certificate that vouches for nothing")?;
    }
    ensure!(!roots.is_empty(), "no certificate to trust");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

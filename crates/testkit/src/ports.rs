//! Ports on the loopback interface for servers that want to know theirs beforehand.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context;

/// Below the ranges from which systems take the ports of outgoing connections: a server that is stopped for a while finds its
/// port free again.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// How often a server is started before its failure is told.
const ATTEMPTS: u32 = 3;

/// Starts a server that takes its ports from [`free`]. Between finding a port free and listening on it somebody else may: another attempt
/// looks for other ports.
pub(crate) async fn with_others_on_failure<T>(
    what: &str,
    mut start: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut attempt = 1;
    loop {
        match start().await {
            Err(_) if attempt < ATTEMPTS => attempt += 1,
            result => return result.with_context(|| format!("starting {what}, attempt {attempt}")),
        }
    }
}

/// A port that nothing listens on. Somebody may take it before the server does, so starting a server is tried again with another.
pub(crate) fn free() -> anyhow::Result<u16> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Test binaries run side by side: each starts looking at a place of its own, and none is handed out twice.
    let start = std::process::id().wrapping_mul(97);
    (0..COUNT)
        .map(|_| FIRST + start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .filter_map(|port| u16::try_from(port).ok())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no free port on the loopback interface")
}

//! Who sealed an epoch, mostly without fetching its seal.

use std::collections::{BTreeMap, BTreeSet};

use md5::{Digest, Md5};

use crate::inventory::Seal;

/// The longest body of a seal, in bytes. A longer one is malformed, and is not fetched to find out.
pub const LONGEST_MARKER: u64 = 1024;

/// So many committers beyond the recorded holders are remembered. Forgetting one costs requests, and nothing else.
const REMEMBERED: usize = 4096;

/// Why a seal names no committer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Malformed {
    /// It has no body.
    Empty,
    /// Its body is longer than [`LONGEST_MARKER`].
    TooLong {
        /// Its size in bytes.
        size: u64,
    },
    /// Its body is not UTF-8.
    NotUtf8,
}

impl Malformed {
    /// What the size alone tells.
    pub(super) const fn by_size(size: u64) -> Option<Self> {
        match size {
            0 => Some(Self::Empty),
            1..=LONGEST_MARKER => None,
            _ => Some(Self::TooLong { size }),
        }
    }
}

/// What identifies a body that was not fetched: its MD5, where the `ETag` is one, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Print {
    md5: [u8; 16],
    size: u64,
}

impl Print {
    fn of(body: &str) -> Self {
        Self { md5: Md5::digest(body.as_bytes()).into(), size: body.len() as u64 }
    }

    /// The print that a listing shows, if its `ETag` has the form of an MD5. Where an `ETag` only looks like one it matches no body,
    /// and costs a request.
    pub(super) fn listed(seal: &Seal) -> Option<Self> {
        let etag = seal.etag.as_deref()?.trim_matches('"').as_bytes();
        if etag.len() != 32 {
            return None;
        }
        let mut md5 = [0; 16];
        for (byte, pair) in md5.iter_mut().zip(etag.chunks_exact(2)) {
            let pair = pair.iter().try_fold(0, |byte, digit| Some(byte << 4 | (*digit as char).to_digit(16)?))?;
            *byte = u8::try_from(pair).ok()?;
        }
        Some(Self { md5, size: seal.size })
    }
}

/// Which of some committers wrote a seal, as far as the listing tells: only where its `ETag` is the MD5 of its body.
#[must_use]
pub fn committer_of<'a>(seal: &Seal, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let print = Print::listed(seal)?;
    known.into_iter().find(|committer| Print::of(committer) == print)
}

/// The committers known in this audit: the recorded holders, and whom a fetched seal named.
#[derive(Debug)]
pub(super) struct Committers {
    holders: BTreeSet<String>,
    known: BTreeMap<Print, String>,
}

impl Committers {
    pub(super) fn new<'a>(holders: impl Iterator<Item = &'a str>) -> Self {
        let holders: BTreeSet<String> = holders.map(str::to_owned).collect();
        let known = holders.iter().map(|holder| (Print::of(holder), holder.clone())).collect();
        Self { holders, known }
    }

    /// Who wrote a seal with this print, if that is known.
    pub(super) fn by_print(&self, print: &Print) -> Option<&str> {
        self.known.get(print).map(String::as_str)
    }

    /// Remembers whom a fetched seal named.
    pub(super) fn remember(&mut self, committer: &str) {
        if self.known.len() < self.holders.len() + REMEMBERED {
            self.known.insert(Print::of(committer), committer.to_owned());
        }
    }

    /// Whether a fence record names it.
    pub(super) fn is_holder(&self, committer: &str) -> bool {
        self.holders.contains(committer)
    }
}

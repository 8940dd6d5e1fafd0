//! What happened in a run, in its order: a hash of everything, and the words of it where somebody wants to read them.

use std::fmt::Write;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// `worded`: whether the events are kept as text.
    pub(crate) fn new(worded: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, lines: worded.then(Vec::new) }
    }

    /// Notes that `who` did `what` to `key` at a millisecond of the run.
    pub(crate) fn note(&mut self, at: u64, who: &str, what: &str, key: &str) {
        self.events += 1;
        self.mix(&at.to_le_bytes());
        self.mix(who.as_bytes());
        self.mix(what.as_bytes());
        self.mix(key.as_bytes());
        if let Some(lines) = &mut self.lines {
            let mut line = String::new();
            let _ = write!(line, "{:>9} s  {who:<22} {what} {key}", Seconds(at));
            lines.push(line);
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Two runs with one hash did the same.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The words, where they were kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// Milliseconds, shown as seconds.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{:03}", self.0 / 1000, self.0 % 1000))
    }
}

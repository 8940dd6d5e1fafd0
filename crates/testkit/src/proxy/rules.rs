//! What happens to which requests, and how many there were.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fault::matches;

/// How many different requests are counted apart.
const DIFFERENT: usize = 16_384;

/// An answer: from a rule in the server's place, or from the server on its way through a rule. Its length is announced by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Names and values, without those about length and transfer.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// An answer without headers and body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    /// An error as S3 answers it.
    #[must_use]
    pub fn s3(status: u16, code: &str) -> Self {
        let xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>the proxy says so</Message></Error>"
        );
        Self::new(status).header("content-type", "application/xml").body(xml)
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with another body.
    #[must_use]
    pub fn body(mut self, text: impl Into<String>) -> Self {
        self.body = text.into();
        self
    }
}

/// How often a rule has acted.
#[derive(Debug, Clone, Default)]
pub struct Hits(Arc<AtomicU64>);

impl Hits {
    /// How often, so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// How many requests one journal remembers.
const REMEMBERED: usize = 65_536;

/// One request in a [`Journal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Its path and query, as people write them.
    pub target: String,
    /// When it had arrived, headers and all.
    pub arrived: Instant,
    /// When the head of its answer went back; `None` before, and for ever where there was none.
    pub answered: Option<Instant>,
}

/// When requests arrived and were answered. The first 65,536 are remembered.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<Vec<Passage>>>);

impl Journal {
    fn lines(&self) -> MutexGuard<'_, Vec<Passage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has passed so far, in the order of arrival.
    #[must_use]
    pub fn passages(&self) -> Vec<Passage> {
        self.lines().clone()
    }

    /// The first request whose target matches `pattern`, as in [`super::Proxy::on`].
    #[must_use]
    pub fn first(&self, pattern: &str) -> Option<Passage> {
        self.lines().iter().find(|passage| matches(pattern, &passage.target)).cloned()
    }
}

struct Writer {
    method: String,
    pattern: String,
    journal: Journal,
}

/// The lines that journals have of one request.
pub(super) struct Noted(Vec<(Journal, usize)>);

impl Noted {
    pub(super) fn answered(self) {
        for (journal, line) in self.0 {
            if let Some(passage) = journal.lines().get_mut(line) {
                passage.answered = Some(now());
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "what is measured is real time, on whatever thread")]
fn now() -> Instant {
    Instant::now()
}

#[derive(Clone)]
pub(super) enum Action {
    Answer(Answer),
    CutBody(usize),
    CloseBefore,
    CloseAfter,
    Hang,
    Delay(Duration),
    Rewrite(Arc<dyn Fn(Answer) -> Answer + Send + Sync>),
}

struct Rule {
    method: String,
    pattern: String,
    skip: u64,
    times: u64,
    action: Action,
    hits: Hits,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    writers: Vec<Writer>,
    counts: BTreeMap<(String, String), u64>,
}

/// The rules of one proxy.
#[derive(Clone, Default)]
pub(super) struct Rules(Arc<Mutex<State>>);

impl Rules {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn on(&self, method: &str, pattern: &str) -> RuleBuilder {
        let (method, pattern) = (method.to_owned(), pattern.to_owned());
        RuleBuilder { rules: self.clone(), method, pattern, skip: 0, times: u64::MAX }
    }

    pub(super) fn clear(&self) {
        self.state().rules.clear();
    }

    pub(super) fn journal(&self, method: &str, pattern: &str) -> Journal {
        let journal = Journal::default();
        let writer = Writer { method: method.to_owned(), pattern: pattern.to_owned(), journal: journal.clone() };
        self.state().writers.push(writer);
        journal
    }

    /// Notes that a request has arrived.
    pub(super) fn note(&self, method: &str, target: &str) -> Noted {
        let state = self.state();
        let wanted = state.writers.iter().filter(|writer| is(&writer.method, method));
        let mut noted = Vec::new();
        for writer in wanted {
            let target = decode(target);
            let mut lines = writer.journal.lines();
            if lines.len() < REMEMBERED && matches(&writer.pattern, &target) {
                lines.push(Passage { target, arrived: now(), answered: None });
                noted.push((writer.journal.clone(), lines.len() - 1));
            }
        }
        Noted(noted)
    }

    pub(super) fn requests(&self, method: &str, pattern: &str) -> u64 {
        let state = self.state();
        let known = state.counts.iter();
        known.filter(|((of, target), _)| is(method, of) && matches(pattern, target)).map(|(_, count)| count).sum()
    }

    /// Counts a request and gives what is to happen to it.
    pub(super) fn take(&self, method: &str, target: &str) -> Option<Action> {
        let target = decode(target);
        let mut state = self.state();
        let State { rules, counts, .. } = &mut *state;
        let mut counted = (method.to_owned(), target.clone());
        if counts.len() >= DIFFERENT && !counts.contains_key(&counted) {
            counted.1 = String::new();
        }
        *counts.entry(counted).or_default() += 1;
        for rule in rules {
            if rule.times == 0 || !is(&rule.method, method) || !matches(&rule.pattern, &target) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            rule.hits.0.fetch_add(1, Ordering::SeqCst);
            return Some(rule.action.clone());
        }
        None
    }
}

fn is(wanted: &str, method: &str) -> bool {
    wanted == "*" || wanted == method
}

/// A path and query with its `%XX` replaced by what they stand for.
fn decode(target: &str) -> String {
    let mut bytes = Vec::with_capacity(target.len());
    let mut rest = target.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| first == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = escaped.unwrap_or((first, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A rule that still has to be told what to do. Without [`RuleBuilder::once`] or [`RuleBuilder::times`] it goes on until
/// [`super::Proxy::clear`].
#[must_use = "a rule does nothing before it is told what to do"]
pub struct RuleBuilder {
    rules: Rules,
    method: String,
    pattern: String,
    skip: u64,
    times: u64,
}

impl fmt::Debug for RuleBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.pattern)
    }
}

#[allow(clippy::must_use_candidate, reason = "the count is for tests that want to know")]
impl RuleBuilder {
    /// Acts on the first request only.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Acts on that many requests.
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Lets that many requests pass first.
    pub fn skip(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    /// Answers in the server's place, which never hears of the request.
    pub fn answer(self, answer: Answer) -> Hits {
        self.act(Action::Answer(answer))
    }

    /// The server's answer breaks off after that many bytes of its body, though it announced more.
    pub fn cut_body(self, after: usize) -> Hits {
        self.act(Action::CutBody(after))
    }

    /// Closes the connection; the server never hears of the request.
    pub fn close_before(self) -> Hits {
        self.act(Action::CloseBefore)
    }

    /// Closes the connection after the server has done what it was asked to: the answer is lost, the effect is not.
    pub fn close_after(self) -> Hits {
        self.act(Action::CloseAfter)
    }

    /// Neither answers nor passes on, until [`super::Proxy::clear`].
    pub fn hang(self) -> Hits {
        self.act(Action::Hang)
    }

    /// Passes on later.
    pub fn delay(self, span: Duration) -> Hits {
        self.act(Action::Delay(span))
    }

    /// Puts what `change` makes of the server's answer in its place; one of more than 16 MiB closes the connection.
    pub fn rewrite(self, change: impl Fn(Answer) -> Answer + Send + Sync + 'static) -> Hits {
        self.act(Action::Rewrite(Arc::new(change)))
    }

    fn act(self, action: Action) -> Hits {
        let Self { rules, method, pattern, skip, times } = self;
        let hits = Hits::default();
        rules.state().rules.push(Rule { method, pattern, skip, times, action, hits: hits.clone() });
        hits
    }
}

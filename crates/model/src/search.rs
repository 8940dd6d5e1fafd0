//! Searching a model, and saying what was found.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// Puts steps in words.
pub trait Words: Model {
    /// What happened in one step.
    fn in_words(&self, before: &Self::State, action: &Self::Action, after: &Self::State) -> String;
}

/// What a search of all states found.
#[derive(Debug, Clone)]
pub struct Found {
    /// How many different states were reached.
    pub states: usize,
    /// Whether no state was left of which a step could still be taken. A search that stops at a broken promise is not complete.
    pub complete: bool,
    /// How many steps the longest way has that was taken.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The promises that break, each with the way there in words.
    pub broken: Vec<(&'static str, String)>,
    /// What should have happened somewhere, and never did: the promises would be empty.
    pub never: Vec<&'static str>,
}

/// A model that can be searched.
pub trait Searchable:
    Words<State: Hash + Clone + PartialEq + Debug + Send + Sync, Action: Clone + PartialEq + Debug>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<M> Searchable for M where
    M: Words<State: Hash + Clone + PartialEq + Debug + Send + Sync, Action: Clone + PartialEq + Debug>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Takes every step from every state, on two threads.
pub fn all<M: Searchable>(model: &M) -> Found {
    // Where a promise breaks, the rest need not be searched.
    let failures = names(model, &Expectation::Always);
    let checker = model.clone().checker().threads(2).finish_when(HasDiscoveries::AnyOf(failures)).spawn_dfs();
    found(model, checker)
}

/// Looks for the shortest way to break one promise; with `None`, for any.
pub fn counterexample<M: Searchable>(model: &M, promise: Option<&'static str>) -> Found {
    let wanted = promise.map_or_else(|| names(model, &Expectation::Always), |promise| BTreeSet::from([promise]));
    found(model, model.clone().checker().finish_when(HasDiscoveries::AnyOf(wanted)).spawn_bfs())
}

fn names<M: Model>(model: &M, expectation: &Expectation) -> BTreeSet<&'static str> {
    model
        .properties()
        .iter()
        .filter(|property| property.expectation == *expectation)
        .map(|property| property.name)
        .collect()
}

#[allow(clippy::disallowed_methods, reason = "how long a search takes is told to people, and decides nothing")]
fn found<M: Searchable>(model: &M, checker: impl Checker<M>) -> Found {
    let started = std::time::Instant::now();
    let checker = checker.join();
    let discoveries = checker.discoveries();
    let mut broken = Vec::new();
    let mut never = Vec::new();
    for property in model.properties() {
        match (property.expectation, discoveries.get(property.name)) {
            (Expectation::Always, Some(path)) => broken.push((property.name, in_words(model, path))),
            (Expectation::Sometimes, None) => never.push(property.name),
            _ => {}
        }
    }
    let complete = checker.is_done() && broken.is_empty();
    let (states, depth, took) = (checker.unique_state_count(), checker.max_depth(), started.elapsed());
    Found { states, complete, depth, took, broken, never }
}

fn in_words<M: Searchable>(model: &M, path: &Path<M::State, M::Action>) -> String {
    let steps = path.clone().into_vec();
    let lines = steps.windows(2).enumerate().filter_map(|(number, pair)| match pair {
        [(before, Some(action)), (after, _)] => {
            Some(format!("  {:>2}. {}", number + 1, model.in_words(before, action, after)))
        }
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

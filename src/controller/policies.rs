//! The watch of policies: what of it wakes whom, and who is let go of.
//!
//! One policy that cannot be read (a newer version of the resource has stored it, say) must not keep the others from being worked for,
//! so what is watched is a policy or the error that it gave.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{PredicateConfig, WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use tokio::sync::{Notify, broadcast};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::backoff::of_a_watch;
use super::context::Context;
use super::registry::Registry;
use crate::api::{ANNOTATION_PREFIX, StateEpochPolicy};
use crate::server::{Listed, PolicyName};

/// A policy as it is stored, whether or not it can be read.
pub(super) type Stored = DeserializeGuard<StateEpochPolicy>;

/// How often the policies of the cluster are compared with those that are worked for, in case the watch has missed something.
const SWEEP: Duration = Duration::from_mins(1);

/// The policies of one namespace, or of all.
pub(super) struct Policies {
    pub(super) context: Arc<Context>,
    pub(super) registry: Arc<Registry>,
    pub(super) namespace: Option<String>,
    /// Says that the watch has listed everything again.
    relisted: Arc<Notify>,
}

impl Policies {
    /// Of `namespace`, or of all namespaces.
    pub(super) fn new(context: &Arc<Context>, registry: &Arc<Registry>, namespace: Option<&str>) -> Self {
        Self {
            context: Arc::clone(context),
            registry: Arc::clone(registry),
            namespace: namespace.map(str::to_owned),
            relisted: Arc::default(),
        }
    }

    /// What the watch shows of policies that have to be looked at, and the store that it fills. Deletions end the work at once.
    ///
    /// Of a policy's text, who wrote which field is most, and nobody asks for it: it is not kept.
    pub(super) fn watch(
        &self,
    ) -> (reflector::Store<Stored>, impl Stream<Item = Result<Stored, watcher::Error>> + Send + use<>) {
        let client = self.context.client.clone();
        let api: Api<Stored> = match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let config = watcher::Config {
            label_selector: self.context.settings.policy_selector.clone(),
            ..watcher::Config::default()
        };
        let (reader, writer) = reflector::store::<Stored>();
        let (context, registry, relisted) =
            (Arc::clone(&self.context), Arc::clone(&self.registry), Arc::clone(&self.relisted));
        let watch = watcher(api, config).backoff(of_a_watch()).modify(|policy| policy.meta_mut().managed_fields = None);
        let stream = reflector::reflector(writer, watch)
            .inspect(move |event| match event {
                Ok(watcher::Event::Delete(policy)) => {
                    registry.remove(&policy.uid().unwrap_or_default());
                    let name = name_of(policy);
                    // One that was never worked for has counted its looks.
                    registry.unless_named(&name, || context.metrics.forget(&name));
                }
                Ok(watcher::Event::InitDone) => relisted.notify_one(),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the watch of policies was interrupted and is being resumed"),
            })
            .applied_objects()
            .predicate_filter(what_wakes, PredicateConfig::default());
        (reader, stream)
    }

    /// The policies that somebody asked to look at out of turn.
    pub(super) fn wakes(&self) -> impl Stream<Item = ObjectRef<Stored>> + Send + use<> {
        futures::stream::unfold(self.context.wake.subscribe(), |mut wakes| async move {
            loop {
                match wakes.recv().await {
                    Ok(PolicyName { namespace, name }) => {
                        return Some((ObjectRef::new(&name).within(&namespace), wakes));
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// Says that the policies are listed once they are. From then on compares them with those that are worked for, now and then and
    /// whenever they were listed again: lets go of those that are gone, and has those looked at that the watch did not tell of. (While
    /// pages are still being listed, the controller finds the object of before, or none.)
    pub(super) async fn sweep(
        &self,
        policies: reflector::Store<Stored>,
        listed: &Listed,
        shutdown: &CancellationToken,
    ) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            ready = policies.wait_until_ready() => if ready.is_err() { return },
        }
        listed.set();
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.relisted.notified() => {}
            }
            self.compare(&policies.state());
        }
    }

    fn compare(&self, policies: &[Arc<Stored>]) {
        let known: HashSet<String> = policies.iter().filter_map(|policy| policy.uid()).collect();
        self.registry.retain(|handle| {
            let elsewhere = self.namespace.as_ref().is_some_and(|namespace| handle.name.namespace != *namespace);
            elsewhere || known.contains(&handle.uid)
        });
        for policy in policies {
            if let Ok(readable) = &policy.0
                && readable.metadata.deletion_timestamp.is_none()
                && !self.registry.knows(readable)
            {
                self.context.wake(name_of(policy));
            }
        }
    }
}

/// Namespace and name of what is stored.
pub(super) fn name_of(policy: &Stored) -> PolicyName {
    PolicyName { namespace: policy.namespace().unwrap_or_default(), name: policy.name_any() }
}

/// What wakes a policy: another generation, deletion or uid, another value of one of our annotations. A status write is none of these.
#[allow(clippy::unnecessary_wraps, reason = "a predicate may have nothing to say")]
fn what_wakes(policy: &Stored) -> Option<u64> {
    let metadata = policy.meta();
    let mut hasher = DefaultHasher::new();
    metadata.uid.hash(&mut hasher);
    metadata.generation.hash(&mut hasher);
    metadata.deletion_timestamp.is_some().hash(&mut hasher);
    for annotation in policy.annotations().iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
        annotation.hash(&mut hasher);
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests;

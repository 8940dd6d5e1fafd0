//! A leader, as far as its Lease shows one.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};

/// A Lease that the test writes.
pub(crate) struct Leader {
    api: Api<Lease>,
    name: String,
    pub(crate) seconds: i32,
    /// How far its clock is from the right one.
    pub(crate) clock_off: SignedDuration,
}

impl Leader {
    pub(crate) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.into(),
            seconds: 3600,
            clock_off: SignedDuration::ZERO,
        }
    }

    /// Makes `holder` the leader after `transitions` changes of leadership.
    pub(crate) async fn lead(&self, holder: &str, transitions: i32) -> anyhow::Result<()> {
        self.write(Some(holder), transitions, None).await
    }

    /// The same, with the annotation by which a leader declares its version.
    pub(crate) async fn declare(&self, holder: &str, transitions: i32, version: &str) -> anyhow::Result<()> {
        self.write(Some(holder), transitions, Some(version)).await
    }

    /// Nobody leads any more.
    pub(crate) async fn release(&self, transitions: i32) -> anyhow::Result<()> {
        self.write(None, transitions, None).await
    }

    pub(crate) async fn delete(&self) -> anyhow::Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn write(&self, holder: Option<&str>, transitions: i32, version: Option<&str>) -> anyhow::Result<()> {
        let annotations = version
            .map(|version| BTreeMap::from([("epochwarden.io/assignment-version".to_owned(), version.to_owned())]));
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), annotations, ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: holder.map(str::to_owned),
                lease_duration_seconds: Some(self.seconds),
                lease_transitions: Some(transitions),
                renew_time: Some(MicroTime(now() + self.clock_off)),
                ..LeaseSpec::default()
            }),
        };
        self.api.patch(&self.name, &PatchParams::apply("test-leader").force(), &Patch::Apply(&lease)).await?;
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "a leader of a test writes the time of its renewal as any leader does")]
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

//! What the operator counts and measures, under the prefix `epochwarden_`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use epochwarden_store::{Observer, Operation, Outcome};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::limits::BucketLimits;
use super::series::{PolicyName, PolicySeries};

type Number = Gauge<f64, AtomicU64>;
type OperationLabel = [(&'static str, &'static str); 1];

/// All metrics of the operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// The highest version known to be durable.
    pub fence_version: PolicySeries<Number>,
    /// Of the last publication: from the Lease event to the durable fence.
    pub fence_last_lag_seconds: PolicySeries<Number>,
    /// Of all publications: from the Lease event to the durable fence.
    pub fence_lag_seconds: Histogram,
    /// Publications by result.
    pub fence_publish: PolicySeries<Counter>,
    /// When the newest sealed epoch was sealed.
    pub latest_committed_timestamp_seconds: PolicySeries<Number>,
    /// Epochs by state, as of the last listing.
    pub epochs: PolicySeries<Number>,
    /// Bytes below the root, as of the last listing.
    pub store_bytes: PolicySeries<Number>,
    /// Prune runs by result.
    pub prune_runs: PolicySeries<Counter>,
    /// Objects deleted by prunes.
    pub prune_deleted_objects: PolicySeries<Counter>,
    /// Bytes deleted by prunes.
    pub prune_deleted_bytes: PolicySeries<Counter>,
    /// How long prune runs take.
    pub prune_duration_seconds: Histogram,
    /// 1 while prune holds for a reason.
    pub prune_held: PolicySeries<Number>,
    /// Audit runs by result.
    pub audit_runs: PolicySeries<Counter>,
    /// Findings of the last audit by kind.
    pub audit_findings: PolicySeries<Number>,
    /// Requests to object stores.
    pub store_requests: PolicySeries<Counter>,
    /// How long requests to object stores take.
    pub store_request_duration_seconds: Family<OperationLabel, Histogram, fn() -> Histogram>,
    /// What prunes may delete in a second, by bucket.
    pub store_keys_per_second_limit: BucketLimits,
    /// The conditions: 1 where the status is True.
    pub condition: PolicySeries<Number>,
    /// Reconciliations by result.
    pub reconcile: PolicySeries<Counter>,
    /// How long reconciliations take.
    pub reconcile_duration_seconds: Histogram,
    /// 1 while this process does the work.
    pub leader: Number,
}

fn request_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

impl Metrics {
    /// All metrics, registered and empty.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("epochwarden"),
            fence_version: PolicySeries::new(&[]),
            fence_last_lag_seconds: PolicySeries::new(&[]),
            fence_lag_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            fence_publish: PolicySeries::new(&["result"]),
            latest_committed_timestamp_seconds: PolicySeries::new(&[]),
            epochs: PolicySeries::new(&["state"]),
            store_bytes: PolicySeries::new(&[]),
            prune_runs: PolicySeries::new(&["result"]),
            prune_deleted_objects: PolicySeries::new(&[]),
            prune_deleted_bytes: PolicySeries::new(&[]),
            prune_duration_seconds: Histogram::new(exponential_buckets(0.1, 2.0, 16)),
            prune_held: PolicySeries::new(&["reason"]),
            audit_runs: PolicySeries::new(&["result"]),
            audit_findings: PolicySeries::new(&["kind"]),
            store_requests: PolicySeries::new(&["operation", "result"]),
            store_request_duration_seconds: Family::new_with_constructor(request_buckets),
            store_keys_per_second_limit: BucketLimits::default(),
            condition: PolicySeries::new(&["type", "reason"]),
            reconcile: PolicySeries::new(&["result"]),
            reconcile_duration_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            leader: Number::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "fence_version",
            "Highest assignment version known to be durable in the bucket",
            self.fence_version.clone(),
        );
        r.register_with_unit(
            "fence_last_lag",
            "Of the last published fence: time from the Lease event to the durable record",
            Unit::Seconds,
            self.fence_last_lag_seconds.clone(),
        );
        r.register_with_unit(
            "fence_lag",
            "Time from a Lease event to the durable fence record",
            Unit::Seconds,
            self.fence_lag_seconds.clone(),
        );
        r.register("fence_publish", "Attempts to publish the fence, by result", self.fence_publish.clone());
        r.register_with_unit(
            "latest_committed_timestamp",
            "When the newest sealed epoch was sealed, by the store's clock, as of the last listing",
            Unit::Seconds,
            self.latest_committed_timestamp_seconds.clone(),
        );
        r.register("epochs", "Epochs in the bucket by state, as of the last listing", self.epochs.clone());
        r.register_with_unit(
            "store",
            "Size of all epochs, as of the last listing",
            Unit::Bytes,
            self.store_bytes.clone(),
        );
        r.register("prune_runs", "Prune runs, by result", self.prune_runs.clone());
        r.register("prune_deleted_objects", "Objects that prunes deleted", self.prune_deleted_objects.clone());
        r.register_with_unit(
            "prune_deleted",
            "Size of the objects that prunes deleted",
            Unit::Bytes,
            self.prune_deleted_bytes.clone(),
        );
        r.register_with_unit(
            "prune_duration",
            "Duration of prune runs",
            Unit::Seconds,
            self.prune_duration_seconds.clone(),
        );
        r.register("prune_held", "1 while prune deletes nothing for this reason", self.prune_held.clone());
        r.register("audit_runs", "Audit runs, by result", self.audit_runs.clone());
        r.register("audit_findings", "Findings of the last audit, by kind", self.audit_findings.clone());
        r.register(
            "store_requests",
            "Requests to the object store, by operation and result",
            self.store_requests.clone(),
        );
        r.register_with_unit(
            "store_request_duration",
            "Duration of requests to object stores, by operation",
            Unit::Seconds,
            self.store_request_duration_seconds.clone(),
        );
        r.register(
            "store_keys_per_second_limit",
            "Keys that prunes under way may delete in a bucket per second, as the store lets them for now",
            self.store_keys_per_second_limit.clone(),
        );
        r.register(
            "condition",
            "The current reason of each condition: 1 where the status is True, else 0",
            self.condition.clone(),
        );
        r.register("reconcile", "Reconciliations, by result", self.reconcile.clone());
        r.register_with_unit(
            "reconcile_duration",
            "Duration of reconciliations",
            Unit::Seconds,
            self.reconcile_duration_seconds.clone(),
        );
        r.register(
            "leader",
            "1 while this operator does the work, 0 while it stands by; without leader election 1",
            self.leader.clone(),
        );
        r.register("build", "The version of this operator", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    }

    /// All metrics in the OpenMetrics text format.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Removes every series of a policy.
    pub fn forget(&self, policy: &PolicyName) {
        self.fence_version.forget(policy);
        self.fence_last_lag_seconds.forget(policy);
        self.fence_publish.forget(policy);
        self.latest_committed_timestamp_seconds.forget(policy);
        self.epochs.forget(policy);
        self.store_bytes.forget(policy);
        self.prune_runs.forget(policy);
        self.prune_deleted_objects.forget(policy);
        self.prune_deleted_bytes.forget(policy);
        self.prune_held.forget(policy);
        self.audit_runs.forget(policy);
        self.audit_findings.forget(policy);
        self.store_requests.forget(policy);
        self.condition.forget(policy);
        self.reconcile.forget(policy);
    }

    /// Counts a policy's requests to its store.
    #[must_use]
    pub fn observer(self: &Arc<Self>, policy: PolicyName) -> Arc<dyn Observer> {
        Arc::new(PolicyObserver { metrics: Arc::clone(self), policy })
    }
}

#[derive(Debug)]
struct PolicyObserver {
    metrics: Arc<Metrics>,
    policy: PolicyName,
}

impl Observer for PolicyObserver {
    fn request(&self, operation: Operation, outcome: Outcome, elapsed: Duration) {
        self.metrics.store_requests.of(&self.policy, &[operation.as_str(), outcome.as_str()]).inc();
        self.metrics
            .store_request_duration_seconds
            .get_or_create(&[("operation", operation.as_str())])
            .observe(elapsed.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> PolicyName {
        PolicyName { namespace: "streaming".into(), name: name.into() }
    }

    #[test]
    fn names_are_those_of_the_documentation() {
        let metrics = Metrics::new();
        let orders = policy("orders");
        metrics.fence_version.of(&orders, &[]).set(7.0);
        metrics.fence_publish.of(&orders, &["created"]).inc();
        metrics.store_bytes.of(&orders, &[]).set(1.0);
        metrics.prune_deleted_bytes.of(&orders, &[]).inc_by(3);
        metrics.observer(orders).request(Operation::List, Outcome::Ok, Duration::from_millis(3));
        let text = metrics.encode().unwrap();
        for line in [
            r#"epochwarden_fence_version{namespace="streaming",policy="orders"} 7.0"#,
            r#"epochwarden_fence_publish_total{namespace="streaming",policy="orders",result="created"} 1"#,
            r#"epochwarden_store_bytes{namespace="streaming",policy="orders"} 1.0"#,
            r#"epochwarden_prune_deleted_bytes_total{namespace="streaming",policy="orders"} 3"#,
            r#"epochwarden_store_requests_total{namespace="streaming",policy="orders",operation="list",result="ok"} 1"#,
            r#"epochwarden_store_request_duration_seconds_count{operation="list"} 1"#,
            "epochwarden_fence_lag_seconds_count 0",
            "epochwarden_build_info{version=",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_series_of_a_policy_disappear_with_it_and_others_stay() {
        let metrics = Metrics::new();
        for name in ["orders", "clicks"] {
            let policy = policy(name);
            metrics.fence_version.of(&policy, &[]).set(1.0);
            metrics.fence_last_lag_seconds.of(&policy, &[]).set(1.0);
            metrics.latest_committed_timestamp_seconds.of(&policy, &[]).set(1.0);
            metrics.store_bytes.of(&policy, &[]).set(1.0);
            metrics.prune_deleted_objects.of(&policy, &[]).inc();
            metrics.prune_deleted_bytes.of(&policy, &[]).inc();
            for series in [&metrics.epochs, &metrics.prune_held, &metrics.audit_findings] {
                series.of(&policy, &["x"]).set(1.0);
            }
            for series in [&metrics.fence_publish, &metrics.prune_runs, &metrics.audit_runs, &metrics.reconcile] {
                series.of(&policy, &["x"]).inc();
            }
            metrics.condition.of(&policy, &["Ready", "Reachable"]).set(1.0);
            metrics.observer(policy).request(Operation::Put, Outcome::Ok, Duration::ZERO);
        }
        let before = metrics.encode().unwrap();
        metrics.forget(&policy("orders"));
        let after = metrics.encode().unwrap();
        assert!(before.contains(r#"policy="orders""#));
        assert!(!after.contains(r#"policy="orders""#), "{after}");
        let clicks = |text: &str| text.matches(r#"policy="clicks""#).count();
        assert_eq!(clicks(&after), clicks(&before));
    }

    #[test]
    fn a_condition_shows_only_its_current_reason() {
        let metrics = Metrics::new();
        let orders = policy("orders");
        metrics.condition.of(&orders, &["Ready", "Unreachable"]).set(0.0);
        metrics.condition.of(&orders, &["AuditClean", "Clean"]).set(1.0);
        metrics.condition.forget_where_first_is(&orders, "Ready");
        metrics.condition.of(&orders, &["Ready", "Reachable"]).set(1.0);
        let text = metrics.encode().unwrap();
        assert!(
            !text.contains("Unreachable")
                && text.contains(r#"reason="Reachable""#)
                && text.contains(r#"reason="Clean""#),
            "{text}"
        );
    }
}

//! How fast keys may be deleted in each bucket, as a metric.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};

use super::series::PolicyName;

/// A gauge with the label `bucket`: what the prunes that delete in it together may delete in a second.
///
/// Only buckets in which a prune deletes have a series, so there are no more of them than prunes at once.
#[derive(Debug, Clone, Default)]
pub struct BucketLimits {
    buckets: Arc<Mutex<BTreeMap<String, BTreeMap<PolicyName, u64>>>>,
}

/// The part that one prune has in the limit of its bucket, until it is dropped.
#[derive(Debug)]
pub struct BucketShare {
    limits: BucketLimits,
    bucket: String,
    policy: PolicyName,
    /// What it was last set to; 0 before that.
    last: AtomicU64,
}

impl BucketLimits {
    /// The part of a policy's prune, which counts as soon as it is set.
    #[must_use]
    pub fn share(&self, bucket: &str, policy: PolicyName) -> BucketShare {
        BucketShare { limits: self.clone(), bucket: bucket.to_owned(), policy, last: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<PolicyName, u64>>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BucketShare {
    /// How many keys per second the prune may delete now, at least one. It is told with every object deleted, and nearly always as before.
    pub fn set(&self, keys_per_second: u64) {
        if self.last.swap(keys_per_second, Ordering::Relaxed) == keys_per_second {
            return;
        }
        let mut buckets = self.limits.lock();
        buckets.entry(self.bucket.clone()).or_default().insert(self.policy.clone(), keys_per_second);
    }
}

impl Drop for BucketShare {
    fn drop(&mut self) {
        let mut buckets = self.limits.lock();
        if let Some(shares) = buckets.get_mut(&self.bucket) {
            shares.remove(&self.policy);
            if shares.is_empty() {
                buckets.remove(&self.bucket);
            }
        }
    }
}

impl TypedMetric for BucketLimits {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for BucketLimits {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (bucket, shares) in self.lock().iter() {
            let together = shares.values().fold(0_u64, |sum, share| sum.saturating_add(*share));
            ConstGauge::new(together).encode(encoder.encode_family(&[("bucket", bucket.as_str())])?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn policy(name: &str) -> PolicyName {
        PolicyName { namespace: "streaming".into(), name: name.into() }
    }

    #[test]
    fn a_bucket_shows_what_its_prunes_may_delete_together_for_as_long_as_they_do() {
        let limits = BucketLimits::default();
        let mut registry = Registry::default();
        registry.register("limit", "of a bucket", limits.clone());
        let series = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let series = text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
            series.collect::<Vec<_>>()
        };
        let orders = limits.share("s3://state", policy("orders"));
        let clicks = limits.share("s3://state", policy("clicks"));
        let other = limits.share("gs://state", policy("other"));
        assert!(series().is_empty(), "nothing is deleted yet");
        orders.set(2000);
        clicks.set(500);
        clicks.set(250);
        other.set(10);
        assert_eq!(series(), [r#"limit{bucket="gs://state"} 10"#, r#"limit{bucket="s3://state"} 2250"#]);
        drop(orders);
        assert_eq!(series(), [r#"limit{bucket="gs://state"} 10"#, r#"limit{bucket="s3://state"} 250"#]);
        drop((clicks, other));
        assert!(series().is_empty());
    }
}

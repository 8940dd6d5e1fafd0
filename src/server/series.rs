//! Metrics with a series per policy, which disappear with it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Whose series it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// The policy's namespace.
    pub namespace: String,
    /// The policy's name.
    pub name: String,
}

/// The values of the further labels, in the order of their names. They come from enums, so there are only so many.
type Values = Vec<&'static str>;

/// A metric with the labels `namespace`, `policy`, and further ones whose values are words of the program.
pub struct PolicySeries<M> {
    names: &'static [&'static str],
    series: Arc<RwLock<BTreeMap<PolicyName, BTreeMap<Values, M>>>>,
}

impl<M> Clone for PolicySeries<M> {
    fn clone(&self) -> Self {
        Self { names: self.names, series: Arc::clone(&self.series) }
    }
}

impl<M> fmt::Debug for PolicySeries<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicySeries").field("names", &self.names).finish_non_exhaustive()
    }
}

impl<M: Clone + Default> PolicySeries<M> {
    /// No series yet; `names` are the labels beside `namespace` and `policy`.
    pub(super) fn new(names: &'static [&'static str]) -> Self {
        Self { names, series: Arc::default() }
    }

    /// One series of a policy, made when it is first asked for.
    pub fn of(&self, policy: &PolicyName, values: &[&'static str]) -> M {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        series.entry(policy.clone()).or_default().entry(values.to_vec()).or_default().clone()
    }

    /// Removes all series of a policy.
    pub fn forget(&self, policy: &PolicyName) {
        self.series.write().unwrap_or_else(PoisonError::into_inner).remove(policy);
    }

    /// Removes the series of a policy whose first label is `first`: a state that was left.
    pub fn forget_where_first_is(&self, policy: &PolicyName, first: &'static str) {
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_policy) = series.get_mut(policy) {
            of_policy.retain(|values, _| values.first() != Some(&first));
        }
    }
}

impl<M: TypedMetric> TypedMetric for PolicySeries<M> {
    const TYPE: MetricType = M::TYPE;
}

impl<M: EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static> EncodeMetric for PolicySeries<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let series = self.series.read().unwrap_or_else(PoisonError::into_inner);
        for (policy, of_policy) in series.iter() {
            for (values, metric) in of_policy {
                let mut labels = vec![("namespace", policy.namespace.as_str()), ("policy", policy.name.as_str())];
                labels.extend(self.names.iter().copied().zip(values.iter().copied()));
                metric.encode(encoder.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

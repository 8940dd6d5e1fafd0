//! The Helm chart: what it makes, what it refuses, and what becomes of a cluster that it is installed in.

mod admission;
mod alerts;
mod dashboard;
mod helm;
mod manifests;
mod release;
mod rights;
mod values;

//! A connection over which nothing comes any more, and which nobody closes.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::proxy::Proxy;
use epochwarden_testkit::wait::until;
use tokio::time::Instant;

use super::spec;
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{SOON, cluster, say};

const POLL: Duration = Duration::from_secs(2);

/// What a half-open watch may cost beyond the poll interval.
const BEYOND: Duration = Duration::from_secs(2);

/// How many policies follow the same leader.
const OTHERS: usize = 5;

/// How often every connection of the operator falls silent.
const SILENCES: i32 = 4;

#[tokio::test]
async fn a_lease_change_reaches_the_bucket_within_the_poll_interval_and_two_seconds_of_a_silent_watch() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("half-open").await?;
    let proxy = Proxy::to_tls(&cluster.url(), &std::fs::read_to_string(cluster.certificate())?)?;
    let kubeconfig = cluster.kubeconfig_at(&namespace, cluster.admin_token(), &proxy.url())?;
    let bucket = Bucket::folder()?;
    let root = bucket.path()?.display().to_string();
    let leader = Leader::new(cluster.client().await?, &namespace, "orders-leader");
    leader.lead("pod-0", 0).await?;
    let environment = [("KUBECONFIG", kubeconfig.to_str().unwrap_or_default())];
    let flags = ["--allow-file-root", root.as_str(), "--lease-poll", "2s"];
    let operator = Operator::start_with(cluster, &namespace, &flags, &environment).await?;
    let policy = Policy::apply(cluster, &namespace, "orders", spec(&bucket, "LeaseTransitions", None)).await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    // Their statuses are written at the same time as that one's, over connections that wait in the pool afterwards.
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let name = format!("other-{number}");
        let other = bucket.below(&name)?;
        let policy = Policy::apply(cluster, &namespace, &name, spec(&other, "LeaseTransitions", None)).await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        others.push(bucket.path()?.join(&name));
    }

    let mut lags = Vec::new();
    for change in 1..=SILENCES {
        // The leader renews until the moment of the silence, so the poll is not due by chance.
        leader.lead(&format!("pod-{}", change - 1), change - 1).await?;
        // Everything that is open goes silent, the watch and what waits in the pool; what is opened from now on is not.
        let watches = proxy.requests("GET", "*/leases?*watch=true*");
        proxy.silence();
        proxy.resume();
        let changed = Instant::now();
        leader.lead(&format!("pod-{change}"), change).await?;
        let version = u64::try_from(change)? + 1;
        let record = bucket.path()?.join(format!("_epochwarden/fence/{version:020}"));
        until(&format!("the record of version {version}"), SOON, async || record.exists().then_some(())).await?;
        lags.push(changed.elapsed());
        for other in &others {
            let record = other.join(format!("_epochwarden/fence/{version:020}"));
            until("the records of the others", SOON, async || record.exists().then_some(())).await?;
        }
        // A watch that was found silent is opened again, and the next change comes over it. A poll that was under way when it fell silent
        // finds nothing strange in news; the next one does, as a leader renews.
        until("a new watch of Leases", SOON, async || {
            leader.lead(&format!("pod-{change}"), change).await.ok()?;
            (proxy.requests("GET", "*/leases?*watch=true*") > watches).then_some(())
        })
        .await?;
    }
    say(&format!("with the watch fallen silent and a poll every {POLL:?}, a Lease change was durable after {lags:?}"))?;
    let worst = lags.iter().max().copied().unwrap_or_default();
    ensure!(worst <= POLL + BEYOND, "{worst:?} after the change\n{}", operator.log());
    ensure!(worst >= Duration::from_millis(500), "{lags:?}: the watch was not silent");

    let changed = Instant::now();
    leader.lead("pod-again", SILENCES + 1).await?;
    let record = bucket.path()?.join(format!("_epochwarden/fence/{:020}", SILENCES + 2));
    until("the record over the new watch", SOON, async || record.exists().then_some(())).await?;
    ensure!(changed.elapsed() < Duration::from_secs(1), "the watch that was opened again is silent too");
    Ok(())
}

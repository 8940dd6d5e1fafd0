//! A thousand policies come and go, twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;

use crate::support::census::{Census, Crowd};
use crate::support::operator::Operator;
use crate::support::{cluster, say};

/// How many come at once.
const CROWD: usize = 1_000;

/// How long they may take until all are at work, and until nothing is seen of them.
const WHILE: Duration = Duration::from_mins(10);

/// How long connections that nobody uses stay open.
const IDLE: Duration = Duration::from_mins(4);

/// One policy's share of what a crowd takes is some 100 KiB. What a hundred of them would take is the allocator's to keep.
const TOLERANCE: u64 = 10 * 1024;

#[tokio::test]
async fn a_thousand_policies_leave_no_task_no_connection_no_series_and_no_megabyte_behind() -> Result<()> {
    let crowd = Crowd::gather(cluster().await?, "thousand").await?;
    let operator = crowd.operator().await?;
    let before = crowd.census(&operator).await?;
    say(&format!("no policy yet: {before}"))?;
    let first = round(&crowd, &operator, &before).await?;
    let second = round(&crowd, &operator, &before).await?;
    ensure!(
        second.memory <= first.memory + TOLERANCE,
        "the second thousand left more than the first had: {first}; {second}"
    );
    ensure!(second.threads <= first.threads, "the second thousand left threads: {first}; {second}");
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    Ok(())
}

/// They come and they go, and what the operator is made of then.
async fn round(crowd: &Crowd, operator: &Operator, before: &Census) -> Result<Census> {
    let ready = crowd.come(CROWD, WHILE).await?;
    let at_work = Census::of_now(operator).await?;
    let gone = crowd.leave(operator, WHILE).await?;
    let mut last = None;
    let alone = until("all of them to be gone without a trace", IDLE, async || {
        let now = crowd.census(operator).await.ok()?;
        last = Some(now);
        let gone = now.tasks <= before.tasks
            && now.series <= before.series
            && now.files <= before.files
            && now.sockets <= before.sockets;
        gone.then_some(now)
    });
    let after = alone.await.map_err(|error| error.context(format!("before: {before}; at last: {last:?}")))?;
    say(&format!("{CROWD} policies were at work in {ready:?} ({at_work}), gone in {gone:?} ({after})"))?;
    Ok(after)
}

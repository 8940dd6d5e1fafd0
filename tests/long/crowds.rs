//! Policies come and go by the thousand.

use std::time::Duration;

use anyhow::{Result, ensure};
use epochwarden_testkit::wait::until;

use tokio::time::Instant;

use crate::support::census::{Census, Crowd};
use crate::support::operator::Operator;
use crate::support::{cluster, say};

const THOUSAND: usize = 1_000;

/// How long a thousand may take until all of them are at work, and until nothing is seen of them.
const WHILE: Duration = Duration::from_mins(5);

/// How long connections may stay open that nobody uses, and memory that nobody uses be kept for the next.
const IDLE: Duration = Duration::from_mins(4);

/// Memory is given back over some seconds; where it has not fallen by so many KiB for so long, it has been.
const FALLING: u64 = 256;
const STILL: Duration = Duration::from_secs(12);

/// What the second thousand may leave behind that the first did not, in KiB of resident memory: a policy's own text alone is twice that. The
/// first brings what stays for good, such as tables that have grown, and what it leaves is looked at while connections are still kept.
const MEGABYTE: u64 = 1024;

#[tokio::test]
async fn a_thousand_policies_leave_no_task_no_connection_no_file_no_series_and_no_megabyte_behind() -> Result<()> {
    let crowd = Crowd::gather(cluster().await?, "thousand").await?;
    let operator = crowd.operator().await?;
    let before = crowd.census(&operator).await?;
    say(&format!("no policy yet: {before}"))?;
    let mut first = None;
    for _ in 0..2 {
        let ready = crowd.come(THOUSAND, WHILE).await?;
        let at_work = Census::of_now(&operator).await?;
        let gone = crowd.leave(&operator, WHILE).await?;
        let after = alone(&crowd, &operator, &before, first.map(|memory| memory + MEGABYTE)).await?;
        say(&format!("{THOUSAND} policies at work in {ready:?}: {at_work}; gone in {gone:?}: {after}"))?;
        if first.is_none() {
            first = Some(settled(&operator).await?);
        }
    }
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    Ok(())
}

/// Waits until the allocator has given back what it does not need for now.
async fn settled(operator: &Operator) -> Result<u64> {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    until("resident memory to stop falling", IDLE, async || {
        let now = Census::of_now(operator).await.ok()?.memory;
        if now + FALLING < least {
            (least, since) = (now, Instant::now());
        }
        (since.elapsed() > STILL).then_some(least)
    })
    .await
}

/// Waits until nothing is left but what was there before, and gives what there is then. Connections that nobody uses are closed, and memory
/// that nobody uses goes back, by and by: both are waited for where a bound for the memory is given.
async fn alone(crowd: &Crowd, operator: &Operator, before: &Census, memory: Option<u64>) -> Result<Census> {
    let mut last = None;
    let alone = until("all of them to be gone without a trace", IDLE, async || {
        let now = crowd.census(operator).await.ok()?;
        last = Some(now);
        // Each connection has a task of its own.
        let tasks = |census: &Census| census.tasks.unwrap_or_default().saturating_sub(census.sockets);
        let gone = tasks(&now) <= tasks(before) && now.series <= before.series && now.files <= before.files;
        let to_the_last = memory.is_none_or(|bound| now.sockets <= before.sockets && now.memory <= bound);
        (gone && to_the_last).then_some(now)
    });
    alone.await.map_err(|error| error.context(format!("before: {before}; memory: {memory:?}; at last: {last:?}")))
}

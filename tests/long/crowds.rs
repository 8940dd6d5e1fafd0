//! Policies come and go by the thousand.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
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

/// What the second thousand may leave behind that the first did not, in KiB of resident memory: two for each policy, which takes some seventy
/// at work. Equal rounds were seen to differ by up to 0.9 MiB either way, because connections are still kept when it is looked at. The first
/// round brings what stays for good, such as tables that have grown.
const SLACK: u64 = 2 * 1024;

/// How many connections more may be open because counting uses some: each count is a policy that comes and goes.
const COUNTING: u64 = 4;

#[tokio::test]
async fn a_thousand_policies_leave_no_task_no_connection_no_file_no_series_and_no_megabyte_behind() -> Result<()> {
    let crowd = Crowd::gather(cluster().await?, "thousand").await?;
    let operator = crowd.operator().await?;
    let before = crowd.census(&operator).await?;
    say(&format!("no policy yet: {before}"))?;
    let mut left = None;
    for _ in 0..2 {
        let ready = crowd.come(THOUSAND, WHILE).await?;
        let at_work = Census::of_now(&operator).await?;
        let gone = crowd.leave(&operator, WHILE).await?;
        let after = alone(&crowd, &operator, &before, None).await?;
        // Nothing is asked of the operator here: threads that wait for work would be kept by it.
        let memory = settled(&operator, left.map_or(0, |memory| memory + SLACK)).await;
        let memory = memory.with_context(|| format!("{left:?} KiB were left before: {after}"))?;
        say(&format!(
            "{THOUSAND} policies at work in {ready:?}: {at_work}; gone in {gone:?}: {after}, and {memory} KiB at last"
        ))?;
        left = Some(memory);
    }
    let after = alone(&crowd, &operator, &before, Some(before.sockets + COUNTING)).await?;
    say(&format!("and no connection is left: {after}"))?;
    ensure!(!operator.log().contains("panicked"), "{}", operator.log());
    Ok(())
}

/// Waits until the allocator has given back what it does not need for now: until memory is down to `bound` where that is given, otherwise
/// until it falls no more. Gives how much there is then, in KiB.
async fn settled(operator: &Operator, bound: u64) -> Result<u64> {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    until("resident memory to go back", IDLE, async || {
        let now = Census::of_now(operator).await.ok()?.memory;
        if now.saturating_add(FALLING) < least {
            (least, since) = (now, Instant::now());
        }
        let still = bound == 0 && since.elapsed() > STILL;
        (still || now <= bound).then_some(now)
    })
    .await
}

/// Waits until nothing is left but what was there before, and gives what there is then. Connections that nobody uses are closed by and by,
/// so they are waited for only where it is said how many may stay.
async fn alone(crowd: &Crowd, operator: &Operator, before: &Census, sockets: Option<u64>) -> Result<Census> {
    let mut last = None;
    let alone = until("all of them to be gone without a trace", IDLE, async || {
        let now = crowd.census(operator).await.ok()?;
        last = Some(now);
        // Each connection has a task of its own.
        let tasks = |census: &Census| census.tasks.unwrap_or_default().saturating_sub(census.sockets);
        let gone = tasks(&now) <= tasks(before) && now.series <= before.series && now.files <= before.files;
        (gone && sockets.is_none_or(|most| now.sockets <= most)).then_some(now)
    });
    alone.await.map_err(|error| error.context(format!("before: {before}; at last: {last:?}")))
}

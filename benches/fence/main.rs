//! From the change of a Lease, accepted by the API server, to the fence durable in the bucket: how long it takes.
//!
//! A real API server, a real S3 server with 20 ms added to every request, and the operator as a process. A change is accepted when the
//! API server has answered its writer; the fence is durable when the store has answered the PUT of its record.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, and says what went wrong by failing"
)]

mod crowd;
mod figures;
mod prune;
mod stage;
#[allow(dead_code, reason = "made for the end-to-end tests, which use all of it")]
#[path = "../../tests/e2e/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use figures::Figures;
use stage::Stage;

/// The parts, of which the command line may name some; without any, all are measured.
const PARTS: [&str; 3] = ["lone", "crowd", "prune"];

/// What is added to each request to the store.
const LATENCY: Duration = Duration::from_millis(20);

/// How many changes are measured.
const CHANGES: usize = 500;

/// How many policies there are in a crowd, where the environment's `POLICIES` says nothing, and how often each leader renews.
const POLICIES: usize = 1_000;
const RENEWAL: Duration = Duration::from_secs(2);

/// How much later a PUT may be sent at p99 while a million objects are pruned.
const RISE: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<()> {
    // Cargo adds a flag of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for part in &named {
        ensure!(PARTS.contains(&part.as_str()), "there is no part {part}: {}", PARTS.join(", "));
    }
    let policies = match std::env::var("POLICIES") {
        Ok(count) => count.parse().with_context(|| format!("POLICIES={count}"))?,
        Err(_) => POLICIES,
    };
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);

    println!("| what | p50 | p99 | worst | of | bound for p99 |\n|---|---|---|---|---|---|");
    let mut beyond = Vec::new();
    let mut row = |what: &str, figures: &Figures, bound: Option<Duration>| {
        let told = bound.map_or("-".to_owned(), |bound| format!("{:.1} ms", Figures::millis(bound)));
        println!("| {what} | {figures} | {told} |");
        if bound.is_some_and(|bound| figures.p99 > bound) {
            beyond.push(what.to_owned());
        }
    };
    let mut notes = Vec::new();

    if wanted("lone") || wanted("crowd") {
        let stage = Stage::on_s3("bench-fence").await?;
        let put = stage.put(100).await?;
        row("one PUT of a record, straight to the store", &put, None);
        let bound = Some(put.p50.mul_f64(1.5) + Duration::from_millis(20));
        let operator = stage.operator().await?;
        if wanted("lone") {
            let lone = stage.policy("lone").await?;
            let alone = stage.changes(&operator, &[lone], CHANGES).await?;
            row("Lease change accepted to fence durable, one policy", &alone.accepted, bound);
        }
        if wanted("crowd") {
            let (began, before) = (Instant::now(), stage::Effort::of(&operator)?);
            let crowd = crowd::gather(&stage, policies).await.with_context(|| operator.log())?;
            notes.push(format!("{policies} policies were Ready after {:.0} s", began.elapsed().as_secs_f64()));
            notes.push(format!("the operator meanwhile: {}", stage::Effort::of(&operator)?.since(&before)));

            let quiet = stage.changes(&operator, &crowd.leaders, CHANGES).await?;
            row(&format!("the same among {policies} policies"), &quiet.accepted, bound);

            let renewing = crowd.renew(&stage, RENEWAL)?;
            let before = stage::Effort::of(&operator)?;
            let beside = stage.changes(&operator, &crowd.leaders, CHANGES).await?;
            let spent = stage::Effort::of(&operator)?.since(&before);
            // Not at first, when every renewal opens a connection.
            let get = crowd.get(100).await?;
            let renewals = renewing.end().await?;
            let renewed = format!("among {policies} policies, Leases renewed every {RENEWAL:?}");
            row(&format!("one GET of a Lease from the API server, {renewed}"), &get, None);
            row(&format!("Lease change accepted to fence durable, {renewed}"), &beside.accepted, bound);
            row(&format!("Lease event received to fence durable, {renewed}"), &beside.received, bound);
            notes.push(format!("the operator {renewed}, {renewals:.0} renewals a second: {spent}"));
        }
    }
    if wanted("prune") {
        let measured = prune::measure(CHANGES).await?;
        let prune::Measured { alone, beside, .. } = &measured;
        row("Lease change to PUT sent, store in memory", &alone.accepted, None);
        row("the same while a million objects are pruned", &beside.accepted, None);
        row("Lease event received to PUT sent, store in memory", &alone.received, None);
        let bound = Some(alone.received.p99 + RISE);
        row("the same while a million objects are pruned", &beside.received, bound);
        let (deleted, took) = (measured.deleted, measured.took.as_secs_f64());
        notes.push(format!("{deleted} objects were deleted meanwhile, in {took:.0} s"));
    }
    for note in notes {
        println!("\n{note}");
    }
    ensure!(beyond.is_empty(), "beyond the bound: {}", beyond.join("; "));
    Ok(())
}

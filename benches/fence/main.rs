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
mod stage;
#[allow(dead_code, reason = "made for the end-to-end tests, which use all of it")]
#[path = "../../tests/e2e/support/mod.rs"]
mod support;

use std::time::Duration;

use anyhow::{Result, ensure};

use figures::Figures;
use stage::Stage;

/// What is added to each request to the store.
const LATENCY: Duration = Duration::from_millis(20);

/// How many changes are measured.
const CHANGES: usize = 500;

/// How many policies there are besides, and how often each leader renews.
const POLICIES: usize = 1_000;
const RENEWAL: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::set("bench-fence").await?;
    let put = stage.put(100).await?;
    println!("one PUT of a record straight to the store:   {put}");

    let operator = stage.operator().await?;
    let lone = stage.policy("lone").await?;
    let alone = stage.changes(&[lone], CHANGES).await?;
    println!("one policy, {CHANGES} changes:                    {alone}");

    let crowd = crowd::gather(&stage, POLICIES).await?;
    let renewing = crowd.renew(RENEWAL);
    let before = stage::Effort::of(&operator)?;
    let beside = stage.changes(&crowd.leaders, CHANGES).await?;
    let spent = stage::Effort::of(&operator)?.since(&before);
    renewing.end().await?;
    println!("{POLICIES} policies, renewed every {RENEWAL:?}:          {beside}");
    println!("the operator meanwhile: {spent}");

    let bound = put.p50.mul_f64(1.5) + Duration::from_millis(20);
    println!("the bound for p99, 1.5 PUTs + 20 ms:         {:.1} ms", Figures::millis(bound));
    for (what, figures) in [("one policy", &alone), ("beside the others", &beside)] {
        ensure!(figures.p99 <= bound, "{what}: p99 is {:.1} ms", Figures::millis(figures.p99));
    }
    Ok(())
}

//! Listings that never end, or end too early.

use anyhow::{Result, ensure};
use epochwarden_testkit::proxy::Answer;

use super::{Stage, prune};
use crate::support::cluster;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;

/// Every listing, and those of the whole root alone.
const EVERY: &str = "*list-type=2*";
const WHOLE: &str = "*list-type=2*prefix=state/";

/// The same page, and that there are more, with a token that leads to it again.
fn endless(answer: Answer) -> Answer {
    let body = answer.body.replace("<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>");
    let token = "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
    Answer { body: body.replace("</ListBucketResult>", token), ..answer }
}

/// A page, that there are more, and not where.
fn tokenless(answer: Answer) -> Answer {
    let body = answer.body.replace("<IsTruncated>false</IsTruncated>", "<IsTruncated>true</IsTruncated>");
    Answer { body, ..answer }
}

/// Without the second half of its keys, and a claim that these were all.
fn halved(answer: Answer) -> Answer {
    let keys: Vec<usize> = answer.body.match_indices("<Contents>").map(|(at, _)| at).collect();
    let Some(end) = answer.body.rfind("</Contents>") else { return answer };
    let Some(from) = keys.get(keys.len() / 2) else { return answer };
    let body = format!("{}{}", &answer.body[..*from], &answer.body[end + "</Contents>".len()..]);
    Answer { body, ..answer }
}

#[tokio::test]
async fn a_store_whose_listing_never_ends_is_unsafe_until_it_is_probed_again() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("endless").await?;
    Leader::new(cluster.client().await?, &namespace, "leader").lead("pod-a", 0).await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let stage = Stage::set(cluster, &namespace, "orders", 3).await?;
    stage.proxy.on("GET", EVERY).rewrite(endless);
    let policy = stage.apply().await?;
    let (status, message) = policy.wait_for("StoreReady", "UnsafeStore").await?;
    ensure!(status == "False" && message.contains("repeats a page without end"), "{message}");
    policy.wait_for("Ready", "UnsafeStore").await?;
    policy.wait_for("Stalled", "UnsafeStore").await?;
    stage.epochs_are(&[1, 2, 3]).await?;
    ensure!(stage.bucket.fence().await? == 0, "nothing is written to a store that cannot be read");

    stage.proxy.clear();
    policy.ask("probe@1").await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    policy.wait_for("Ready", "Reachable").await?;
    policy.wait_for("FenceCurrent", "Published").await?;
    policy
        .wait_until("nothing to be stalled", |status| {
            (!status["conditions"].to_string().contains("Stalled")).then_some(())
        })
        .await
}

/// A fault of the whole listing, what the prune says of it, and how often it may ask for a page.
type Paging = (&'static str, fn(Answer) -> Answer, &'static str, std::ops::RangeInclusive<u64>);

const PAGINGS: &[Paging] = &[
    ("endless", endless, "repeats a page without end", 2..=20),
    ("tokenless", tokenless, "gives no token to go on with", 1..=2),
];

#[tokio::test]
async fn a_prune_whose_listing_never_ends_or_breaks_off_is_held_and_the_next_one_is_not() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("pages").await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    for (name, fault, words, pages) in PAGINGS {
        let stage = Stage::set(cluster, &namespace, name, 3).await?;
        let mut spec = stage.spec();
        spec["fence"].take();
        let policy = Policy::apply(cluster, &namespace, name, spec).await?;
        policy.wait_for("StoreReady", "Reachable").await?;
        let hits = stage.proxy.on("GET", WHOLE).rewrite(fault);
        let (phase, reason, message) = prune(&policy, "prune@1").await?;
        ensure!(reason == "Held", "{name}: {phase} {reason}: {message}");
        ensure!(message.contains(words), "{name}: {message}");
        ensure!(pages.contains(&hits.count()), "{name}: {} pages were asked for", hits.count());
        stage.epochs_are(&[1, 2, 3]).await?;

        stage.proxy.clear();
        policy.wait_for("StoreReady", "Reachable").await?;
        let (phase, reason, message) = prune(&policy, "prune@2").await?;
        ensure!(reason == "Succeeded", "{name}: {phase} {reason}: {message}");
        stage.epochs_are(&[3]).await?;
    }
    Ok(())
}

/// No client can see that such a listing is short. What it shows is there all the same, so what retention keeps of it, and
/// everything above, stays.
#[tokio::test]
async fn a_listing_that_leaves_out_its_end_deletes_nothing_that_is_kept() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("short").await?;
    let _operator = Operator::start(cluster, &namespace, &[]).await?;
    let stage = Stage::set(cluster, &namespace, "orders", 8).await?;
    let mut spec = stage.spec();
    spec["fence"].take();
    spec["retention"]["keepLast"] = 2.into();
    let policy = Policy::apply(cluster, &namespace, "orders", spec).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    let hits = stage.proxy.on("GET", WHOLE).rewrite(halved);
    prune(&policy, "prune@1").await?;
    ensure!(hits.count() > 0);
    let short = stage.bucket.sealed().await?;
    ensure!(short.ends_with(&[7, 8]), "{short:?}");

    stage.proxy.clear();
    let (phase, reason, message) = prune(&policy, "prune@2").await?;
    ensure!(reason == "Succeeded", "{phase} {reason}: {message}");
    stage.epochs_are(&[7, 8]).await
}

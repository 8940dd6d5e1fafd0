//! Prunes whose deletes fail: as a whole, for some keys, or only by their answer.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::proxy::{Answer, Hits};
use epochwarden_testkit::s3server::S3Server;
use futures::future::try_join_all;

use super::{Stage, prune, runs};
use crate::support::cluster;
use crate::support::operator::Operator;
use crate::support::policy::Policy;

/// Deletes of many keys at once, and of single ones.
const BULK: (&str, &str) = ("POST", "*delete*");

async fn desk(prefix: &str) -> Result<(String, Operator)> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace(prefix).await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    Ok((namespace, operator))
}

/// A policy on a bucket with epochs 1 to `sealed` that has settled: what comes now comes from the prune.
async fn settled(namespace: &str, name: &str, sealed: u64) -> Result<(Stage, Policy<'static>)> {
    let stage = Stage::set(cluster().await?, namespace, name, sealed).await?;
    let mut spec = stage.spec();
    spec["fence"].take();
    // Claimed and probed before it is asked for anything.
    spec["prune"]["schedule"] = "@yearly".into();
    let policy = Policy::apply(stage.cluster, namespace, name, spec).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    policy.wait_until("the probe", |status| status["store"]["capabilities"].as_object().map(drop)).await?;
    Ok((stage, policy))
}

/// An object as the server keeps it, put back before the answer says that it could not be deleted.
#[derive(Clone)]
struct Undeletable {
    key: String,
    path: PathBuf,
    copy: PathBuf,
    modified: SystemTime,
}

impl Undeletable {
    async fn new(stage: &Stage, folder: &std::path::Path, key: &str) -> Result<Self> {
        let bucket = S3Server::shared().await?.bucket_folder(&format!("{}-{}", stage.namespace, stage.name));
        let path = bucket.join("state").join(key);
        let copy = folder.join(key.replace('/', "_"));
        fs::copy(&path, &copy).with_context(|| path.display().to_string())?;
        let modified = fs::metadata(&path)?.modified()?;
        Ok(Self { key: format!("state/{key}"), path, copy, modified })
    }

    /// What the store would have answered, had it not been able to delete this key.
    fn refuse(&self, answer: Answer) -> Answer {
        let deleted = format!("<Key>{}</Key>", self.key);
        let Some(at) = answer.body.find(&deleted) else { return answer };
        fs::create_dir_all(self.path.parent().expect("a key lies in a folder")).expect("a folder");
        fs::copy(&self.copy, &self.path).expect("the object comes back");
        let object = fs::File::options().write(true).open(&self.path).expect("the object");
        object.set_modified(self.modified).expect("as if it had never been away");
        let (start, end) = (answer.body[..at].rfind("<Deleted>"), answer.body[at..].find("</Deleted>"));
        let (start, end) = (start.expect("an entry"), at + end.expect("an entry") + "</Deleted>".len());
        let error = format!("<Error>{deleted}<Code>AccessDenied</Code><Message>not this one</Message></Error>");
        let body = format!("{}{error}{}", &answer.body[..start], &answer.body[end..]);
        Answer { body, ..answer }
    }
}

#[tokio::test]
async fn keys_that_a_bulk_delete_refuses_are_named_and_tried_again() -> Result<()> {
    let (namespace, _operator) = desk("partly").await?;
    let (stage, policy) = settled(&namespace, "orders", 4).await?;
    let folder = tempfile::tempdir()?;
    let stuck = Undeletable::new(&stage, folder.path(), "epoch=2/vnode=1/partial.bin").await?;
    let refusing = stuck.clone();
    let hits = stage.proxy.on(BULK.0, BULK.1).rewrite(move |answer| refusing.refuse(answer));

    let (phase, reason, message) = prune(&policy, "prune@1").await?;
    ensure!((phase.as_str(), reason.as_str()) == ("PartlyFailed", "PartlyFailed"), "{phase} {reason}: {message}");
    for words in ["epoch=2/vnode=1/partial.bin", "AccessDenied", "could not delete 1", "the next run tries again"] {
        ensure!(message.contains(words), "{words:?} is not in: {message}");
    }
    ensure!(hits.count() > 0 && stuck.path.is_file());
    let status = policy.status().await?;
    ensure!(status["prune"]["failed"] == 1, "{:#}", status["prune"]);
    policy.wait_for_event("PruneFailed").await?;
    // The store itself is well.
    policy.wait_for("StoreReady", "Reachable").await?;
    ensure!(stage.bucket.sealed().await? == [4]);

    stage.proxy.clear();
    let (phase, reason, message) = prune(&policy, "prune@2").await?;
    ensure!((phase.as_str(), reason.as_str()) == ("Succeeded", "Succeeded"), "{phase} {reason}: {message}");
    stage.epochs_are(&[4]).await
}

#[tokio::test]
async fn a_key_that_cannot_be_deleted_makes_one_run_a_slot_of_an_approved_plan_and_holds_up_no_later_one() -> Result<()>
{
    let (namespace, _operator) = desk("stuck").await?;
    let stage = Stage::set(cluster().await?, &namespace, "orders", 4).await?;
    let mut spec = stage.spec();
    spec["fence"].take();
    // Its slots are the requests below.
    spec["prune"]["schedule"] = "@yearly".into();
    spec["prune"]["approval"] = "Manual".into();
    let policy = Policy::apply(stage.cluster, &namespace, "orders", spec).await?;
    policy.wait_for("StoreReady", "Reachable").await?;
    let folder = tempfile::tempdir()?;
    let stuck = Undeletable::new(&stage, folder.path(), "epoch=2/vnode=1/partial.bin").await?;
    stage.proxy.on(BULK.0, BULK.1).rewrite(move |answer| stuck.refuse(answer));

    prune(&policy, "prune@1").await?;
    let digest = policy.status().await?["plan"]["digest"].as_str().context("no plan")?.to_owned();
    let word = format!("epochwarden.io/approve-plan={digest}");
    // And it is left standing.
    policy.kubectl(&["annotate", "sep", "orders", &word]).await?;
    policy.wait_for("PruneHealthy", "PartlyFailed").await?;
    ensure!(runs(&policy.status().await?) == 2, "{:#}", policy.status().await?["history"]);
    for slot in 2..=4 {
        let (phase, reason, message) = prune(&policy, &format!("prune@{slot}")).await?;
        ensure!((phase.as_str(), reason.as_str()) == ("PartlyFailed", "PartlyFailed"), "{phase} {reason}: {message}");
        // Were there another run to come of it, this one would come after it.
        policy.ask(&format!("audit@{slot}")).await?;
        let audits = |status: &serde_json::Value| {
            (status["lastRunRequest"] == format!("audit@{slot}") && status["audit"]["phase"] == "Succeeded")
                .then_some(())
        };
        policy.wait_until("an audit", audits).await?;
        let status = policy.status().await?;
        let prunes = status["history"].as_array().into_iter().flatten().filter(|run| run["kind"] == "Prune").count();
        ensure!(prunes == slot + 1, "{:#}", status["history"]);
        ensure!(status["plan"]["digest"] == digest.as_str(), "{:#}", status["plan"]);
    }

    // The pipeline goes on: what failed once more waits together with what is to go by now.
    stage.bucket.seal(5..=6, 4).await?;
    let (_, reason, _) = prune(&policy, "prune@5").await?;
    ensure!(reason == "PartlyFailed", "{reason}");
    let (_, reason, message) = prune(&policy, "prune@6").await?;
    ensure!(reason == "AwaitingApproval" && message.contains("3 epochs"), "{reason}: {message}");
    stage.proxy.clear();
    let next = policy.status().await?["plan"]["digest"].as_str().context("no plan")?.to_owned();
    policy
        .kubectl(&["annotate", "--overwrite", "sep", "orders", &format!("epochwarden.io/approve-plan={next}")])
        .await?;
    policy.wait_for("PruneHealthy", "Succeeded").await?;
    stage.epochs_are(&[6]).await
}

/// A fault that passes while the store's client tries again: the prune is none the worse.
type Passing = fn(&Stage) -> Hits;

const PASSING: &[(&str, Passing)] = &[
    ("inside", |stage| {
        stage.proxy.on(BULK.0, BULK.1).times(2).answer(Answer { status: 200, ..Answer::s3(200, "SlowDown") })
    }),
    // The keys are gone by now, and the answer says something else.
    ("after", |stage| stage.proxy.on(BULK.0, BULK.1).once().rewrite(|_| Answer::s3(200, "InternalError"))),
    ("slow", |stage| {
        stage.proxy.on(BULK.0, BULK.1).times(3).answer(Answer::s3(503, "SlowDown").header("retry-after", "1"))
    }),
    ("many", |stage| stage.proxy.on(BULK.0, BULK.1).times(2).answer(Answer::s3(429, "TooManyRequests"))),
    ("listing", |stage| stage.proxy.on("GET", "*list-type=2*").times(2).answer(Answer::s3(500, "InternalError"))),
];

#[tokio::test]
async fn a_prune_outlasts_what_passes() -> Result<()> {
    let (namespace, _operator) = desk("passing").await?;
    let plays = PASSING.iter().map(async |(name, fault)| {
        let (stage, policy) = settled(&namespace, name, 4).await?;
        let hits = fault(&stage);
        let (phase, reason, message) = prune(&policy, "prune@1").await?;
        ensure!((phase.as_str(), reason.as_str()) == ("Succeeded", "Succeeded"), "{name}: {phase} {reason}: {message}");
        ensure!(hits.count() > 0, "{name}: the fault was never met");
        stage.epochs_are(&[4]).await
    });
    try_join_all(plays).await.map(drop)
}

/// A fault that lasts: what `PruneHealthy` says, and words that must be there.
struct Lasting {
    name: &'static str,
    fault: fn(&Stage) -> Hits,
    reason: &'static str,
    words: &'static [&'static str],
}

const LASTING: &[Lasting] = &[
    Lasting {
        name: "forbidden",
        fault: |stage| stage.proxy.on(BULK.0, BULK.1).answer(Answer::s3(403, "AccessDenied")),
        reason: "PartlyFailed",
        words: &["deleted 0 epochs", "AccessDenied", "check the credentials"],
    },
    Lasting {
        name: "gone",
        fault: |stage| stage.proxy.on(BULK.0, BULK.1).answer(Answer::s3(404, "NoSuchBucket")),
        reason: "PartlyFailed",
        words: &["deleted 0 epochs", "NoSuchBucket", "create it"],
    },
    Lasting {
        name: "floor",
        fault: |stage| stage.proxy.on("PUT", "*/_epochwarden/floor/*").answer(Answer::s3(403, "AccessDenied")),
        reason: "Failed",
        words: &["_epochwarden/floor", "AccessDenied"],
    },
    Lasting {
        name: "cut",
        fault: |stage| stage.proxy.on("GET", "*prefix=state/").cut_body(300),
        reason: "Failed",
        words: &["cannot list", "the connection broke"],
    },
];

#[tokio::test]
async fn a_prune_that_may_not_delete_or_cannot_list_deletes_nothing_and_says_why() -> Result<()> {
    let (namespace, _operator) = desk("lasting").await?;
    let plays = LASTING.iter().map(async |case| {
        let (stage, policy) = settled(&namespace, case.name, 4).await?;
        let hits = (case.fault)(&stage);
        let (phase, reason, message) = prune(&policy, "prune@1").await?;
        ensure!(reason == case.reason, "{}: {phase} {reason}: {message}", case.name);
        for words in case.words {
            ensure!(message.contains(words), "{}: {words:?} is not in: {message}", case.name);
        }
        ensure!(hits.count() > 0, "{}: the fault was never met", case.name);
        stage.epochs_are(&[1, 2, 3, 4]).await?;
        stage.proxy.clear();
        policy.wait_for("StoreReady", "Reachable").await?;
        let (phase, reason, message) = prune(&policy, "prune@2").await?;
        ensure!((phase.as_str(), reason.as_str()) == ("Succeeded", "Succeeded"), "{phase} {reason}: {message}");
        stage.epochs_are(&[4]).await
    });
    try_join_all(plays).await.map(drop)
}

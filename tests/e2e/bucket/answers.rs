//! What a store answers instead of what it was asked for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use epochwarden_testkit::proxy::{Answer, Proxy};
use futures::future::try_join_all;

use super::Stage;
use crate::support::cluster;
use crate::support::lease::Leader;
use crate::support::operator::Operator;

/// A fault of the whole store, what `StoreReady` says of it, and words that must be there: what happened, and what to do.
struct Case {
    name: &'static str,
    fault: fn(&Proxy),
    reason: &'static str,
    words: &'static [&'static str],
}

fn answering(proxy: &Proxy, answer: Answer) {
    proxy.on("*", "*").answer(answer);
}

const CASES: &[Case] = &[
    Case {
        name: "s401",
        fault: |proxy| answering(proxy, Answer::s3(401, "Unauthorized")),
        reason: "AccessDenied",
        words: &["HTTP 401 Unauthorized", "check the credentials"],
    },
    Case {
        name: "s403",
        fault: |proxy| answering(proxy, Answer::s3(403, "AccessDenied")),
        reason: "AccessDenied",
        words: &["HTTP 403 AccessDenied", "check the credentials"],
    },
    Case {
        name: "s404",
        fault: |proxy| answering(proxy, Answer::s3(404, "NoSuchBucket")),
        reason: "BucketNotFound",
        words: &["HTTP 404 NoSuchBucket", "create it"],
    },
    Case {
        name: "s409",
        fault: |proxy| answering(proxy, Answer::s3(409, "OperationAborted")),
        reason: "Unreachable",
        words: &["HTTP 409 OperationAborted"],
    },
    Case {
        name: "s412",
        fault: |proxy| answering(proxy, Answer::s3(412, "PreconditionFailed")),
        reason: "Unreachable",
        words: &["HTTP 412 PreconditionFailed"],
    },
    Case {
        name: "s429",
        fault: |proxy| answering(proxy, Answer::s3(429, "TooManyRequests").header("retry-after", "3")),
        reason: "Unreachable",
        words: &["HTTP 429 TooManyRequests", "tried again"],
    },
    Case {
        name: "s503",
        fault: |proxy| answering(proxy, Answer::s3(503, "SlowDown").header("retry-after", "3")),
        reason: "Unreachable",
        words: &["HTTP 503 SlowDown", "tried again"],
    },
    Case {
        name: "s500",
        fault: |proxy| answering(proxy, Answer::s3(500, "InternalError")),
        reason: "Unreachable",
        words: &["HTTP 500 InternalError", "tried again"],
    },
    Case {
        name: "s301",
        fault: |proxy| {
            let answer = Answer::s3(301, "PermanentRedirect").header("location", "http://127.0.0.1:9/elsewhere");
            answering(proxy, answer);
        },
        reason: "InvalidConfiguration",
        words: &["HTTP 301", "check the URL, the endpoint and the region"],
    },
    Case {
        name: "s400",
        fault: |proxy| answering(proxy, Answer::s3(400, "AuthorizationHeaderMalformed")),
        reason: "InvalidConfiguration",
        words: &["HTTP 400 AuthorizationHeaderMalformed", "region"],
    },
    // A login page, where somebody has put a portal in between.
    Case {
        name: "html",
        fault: |proxy| answering(proxy, Answer::new(200).body("<html><body>Please log in</body></html>")),
        reason: "Unreachable",
        words: &["cannot list", "no listing", "check the endpoint and the network"],
    },
    Case {
        name: "cut",
        fault: |proxy| drop(proxy.on("GET", "*").cut_body(20)),
        reason: "Unreachable",
        words: &["the connection broke", "check the endpoint and the network"],
    },
    Case {
        name: "closed",
        fault: |proxy| drop(proxy.on("*", "*").close_before()),
        reason: "Unreachable",
        words: &["the connection broke", "check the endpoint and the network"],
    },
    Case {
        name: "hangs",
        fault: |proxy| drop(proxy.on("*", "*").hang()),
        reason: "Unreachable",
        words: &["no answer in time", "check the endpoint and the network"],
    },
    // Half open: the connection stands, and nothing moves on it.
    Case {
        name: "silent",
        fault: Proxy::silence,
        reason: "Unreachable",
        words: &["no answer in time", "check the endpoint and the network"],
    },
];

async fn play(stage: Stage, case: &Case) -> Result<()> {
    (case.fault)(&stage.proxy);
    let policy = stage.apply().await?;
    policy.ask("prune@1").await?;
    let (status, message) = policy.wait_for("StoreReady", case.reason).await?;
    ensure!(status == "False", "{status}");
    for words in case.words.iter().chain(&[stage.bucket.url.as_str()]) {
        ensure!(message.contains(words), "{words:?} is not in: {message}");
    }
    policy.wait_for("Ready", case.reason).await?;
    policy.wait_for("FenceCurrent", "StoreNotReady").await?;
    stage.epochs_are(&[1, 2, 3]).await?;
    ensure!(stage.bucket.fence().await? == 0);
    ensure!(stage.proxy.requests("DELETE", "*") + stage.proxy.requests("POST", "*") == 0, "deletes were tried");

    stage.proxy.clear();
    stage.proxy.resume();
    // What waited is done, which also shows that there was something to be deleted all the time.
    tokio::time::timeout(Duration::from_mins(2), async {
        policy.wait_for("StoreReady", "Reachable").await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        policy.wait_for("PruneHealthy", "Succeeded").await
    })
    .await??;
    policy.wait_for("Ready", "Reachable").await?;
    let conditions = policy.status().await?["conditions"].to_string();
    ensure!(!conditions.contains("Stalled") && !conditions.contains("Reconciling"), "{conditions}");
    stage.epochs_are(&[3]).await
}

#[tokio::test]
async fn whatever_a_store_answers_is_a_condition_in_words_and_clears_by_itself() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("answers").await?;
    Leader::new(cluster.client().await?, &namespace, "leader").lead("pod-a", 0).await?;
    let operator = Operator::start(cluster, &namespace, &[]).await?;
    let plays = CASES.iter().map(async |case| {
        let stage = Stage::set(cluster, &namespace, case.name, 3).await?;
        play(stage, case).await.context(case.name)
    });
    try_join_all(plays).await.map_err(|error| {
        let log = operator.log();
        let about: Vec<&str> = log.lines().rev().take(40).collect();
        error.context(format!("the operator's last words, backwards:\n{}", about.join("\n")))
    })?;
    Ok(())
}

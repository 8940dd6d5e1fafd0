//! The main job of Epochwarden on real parts, narrated: what `make demo` runs.
//!
//! An API server, a store, the operator and two processes of the example pipeline are started, and then things happen to them. What
//! each act shows is observed, never assumed: in the store, in the policy's status, in what the pipeline itself said. The demo succeeds
//! only if every [`Promise`](checklist::Promise) was seen to be kept.
//!
//! - [`acts`] is the play.
//! - [`cluster`], [`store`], [`policy`] and [`cast`] are what it stands on: the cluster, the bucket, the policy, the processes.
//! - [`narrator`] and [`checklist`] are what is printed.

mod acts;
mod cast;
mod checklist;
mod cluster;
mod narrator;
mod policy;
mod store;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::cast::Operator;
use crate::checklist::Checklist;
use crate::cluster::Kube;
use crate::narrator::Narrator;
use crate::policy::Policy;
use crate::store::{Store, StoreKind};

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Shows the main job of Epochwarden on real parts
#[derive(Debug, Parser)]
struct Args {
    /// Where the epochs go: a local folder, or an S3 server that is started for it
    #[arg(long, value_enum, default_value_t = StoreKind::File)]
    store: StoreKind,
    /// Use the cluster of this kubeconfig, in a namespace of the demo's own, instead of starting an API server
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let narrator = Narrator::begin();
    // Declared before everything that writes into it, so that it goes last.
    let folder = epochwarden_testkit::temp_dir()?;
    let mut interruption = pin!(interrupted());

    let kube = tokio::select! {
        kube = Kube::reach(&narrator, args.kubeconfig.as_deref(), folder.path()) => kube?,
        interruption = &mut interruption => return interruption.map(|()| INTERRUPTED.into()),
    };
    let mut checklist = Checklist::default();
    let outcome = tokio::select! {
        outcome = play(&narrator, args.store, &kube, folder.path(), &mut checklist) => Some(outcome),
        interruption = &mut interruption => interruption.map(|()| None)?,
    };
    if let Some(Err(error)) = &outcome {
        narrator.failure(&format!("{error:#}"));
        narrator.logs(folder.path())?;
    }
    kube.leave(&narrator).await?;
    let Some(outcome) = outcome else { return Ok(INTERRUPTED.into()) };
    narrator.checklist(&checklist);
    Ok(if outcome.is_ok() && checklist.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sets the stage and plays all acts. Every process that it starts ends with it.
async fn play(
    narrator: &Narrator,
    kind: StoreKind,
    kube: &Kube,
    folder: &Path,
    checklist: &mut Checklist,
) -> anyhow::Result<()> {
    let store = Store::create(kind, folder).await?;
    narrator.line(&format!("The state goes to {}.", store.description()));
    kube.create_namespace().await?;

    let crd = Operator::crd().await?;
    kube.kubectl_stdin(&["apply", "--server-side", "--filename", "-"], &crd).await?;
    kube.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "crd/stateepochpolicies.epochwarden.io"])
        .await?;
    if let Some(secret) = store.secret() {
        kube.kubectl_stdin(&["apply", "--filename", "-"], &secret).await?;
    }
    kube.kubectl_stdin(&["apply", "--filename", "-"], &policy::manifest(&store)).await?;
    narrator
        .line("kubectl apply: the CRD, and the policy \"orders\": 4 vnodes, fenced by the Lease \"orders-leader\",");
    narrator.line("  keeping the last 3 epochs, pruned at every full minute.");

    let policy = Policy::new(kube);
    let mut operator = Operator::start(kube, &store, folder)?;
    tokio::select! {
        outcome = acts::all(narrator, kube, &store, &policy, folder, checklist) => outcome,
        ended = operator.ended() => bail!("the operator ended with {}", ended?),
    }
}

/// Returns when somebody wants the demo to end. What it started and wrote goes with the values that own it.
async fn interrupted() -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("listening to signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    Ok(())
}

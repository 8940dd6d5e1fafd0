//! A small stream processor on the library: a leader, a state per vnode, an epoch about every second, fail-over.
//!
//! Several of these processes may run at once. One of them holds the Lease and leads: it restores the newest sealed epoch, counts
//! events, and seals an epoch per interval. The others wait for their turn. What is worth copying is [`term`]: the order in which a
//! leader waits for its fence, restores, writes and seals.
//!
//! ```text
//! cargo run --example pipeline -- --store file:///tmp/state --lease default/orders-leader --vnodes 4
//! ```
//!
//! The operator publishes the fence, so a policy for the same store and the same Lease has to be there. On standard input the words
//! `pause` and `resume` stop a leader in the middle of an epoch and let it go on.

mod election;
mod pause;
mod state;
mod term;

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use election::{Candidate, Role};
use epochwarden_store::{InstanceId, Root, RootSettings, UniqueInstanceId};
use pause::Pause;
use term::Term;
use tokio::time::interval;

#[derive(Debug, Parser)]
struct Args {
    /// Where the epochs go, for example `s3://bucket/prefix` or `file:///folder`
    #[arg(long, value_name = "URL")]
    store: String,
    /// An option of the store; may be repeated. Credentials come from the environment, such as `AWS_SECRET_ACCESS_KEY`
    #[arg(long = "store-option", value_name = "KEY=VALUE", value_parser = key_value)]
    store_options: Vec<(String, String)>,
    /// The Lease that decides who leads
    #[arg(long, value_name = "NAMESPACE/NAME")]
    lease: String,
    /// How long a leader may be silent before another takes over, in seconds
    #[arg(long, default_value_t = 4)]
    lease_seconds: u32,
    /// How many vnodes the state has
    #[arg(long, default_value_t = 4)]
    vnodes: u32,
    /// The time between two epochs, in milliseconds
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..))]
    interval_milliseconds: u64,
    /// The name of this pod
    #[arg(long, default_value = "pipeline")]
    pod_name: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    pair.ok_or_else(|| format!("write key=value, not {text:?}"))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    // A version belongs to one start of a process: with the random part, this start is another instance than the one before.
    let identity = InstanceId::unique(&args.pod_name);
    println!("started {identity}");
    let identity = identity.as_str();

    let settings = RootSettings { ambient_credentials: true, ..RootSettings::default() };
    let root = Root::open(&args.store, args.store_options, &settings)?;
    let client = kube::Client::try_default().await.context("connecting to Kubernetes")?;
    let (namespace, lease) = args.lease.split_once('/').context("--lease: write namespace/name")?;
    let mut candidate = Candidate::new(client, namespace, lease, identity, args.lease_seconds);
    let mut pause = Pause::on_standard_input();
    let epochs = Duration::from_millis(args.interval_milliseconds);

    let mut followed = None;
    let mut looks = interval(epochs / 4);
    loop {
        looks.tick().await;
        match candidate.campaign().await? {
            Role::Follower { leader } => {
                if followed.as_ref() != Some(&leader) {
                    println!("following {leader}");
                    followed = Some(leader);
                }
            }
            Role::Leader { version } => {
                println!("leading version {version}");
                followed = None;
                let term = Term { root: &root, identity, version, vnodes: args.vnodes, interval: epochs };
                // A term ends with an error, always. Nothing is lost by that: what was not sealed was never acknowledged.
                let Err(end) = term.lead(&mut candidate, &mut pause).await;
                println!("stepping down from version {version}: {end:#}");
            }
        }
    }
}

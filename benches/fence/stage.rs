//! The servers, the operator, and the leaders whose changes are measured.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use epochwarden_store::{Registers, Root, RootSettings};
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::memory::MemoryServer;
use epochwarden_testkit::proxy::{Journal, Proxy};
use epochwarden_testkit::s3server::S3Server;
use epochwarden_testkit::wait::until;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::LATENCY;
use crate::figures::{Figures, Since};
use crate::support::bucket::Bucket;
use crate::support::lease::Leader;
use crate::support::operator::Operator;
use crate::support::policy::Policy;
use crate::support::{cluster, install, secret};

/// How long anything may take that is not measured.
const DEADLINE: Duration = Duration::from_mins(10);

/// What has a machine of its own elsewhere is this nice here.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// How long after one change the next one begins, at least.
const APART: Duration = Duration::from_millis(200);

/// An API server collects its garbage when it has as much memory as this, and not before. Elsewhere it has processors for that; here
/// it would take them from the rest, every few seconds, and requests would wait meanwhile.
const ROOM: [(&str, &str); 2] = [("GOGC", "off"), ("GOMEMLIMIT", "8GiB")];

async fn roomy_cluster() -> Result<&'static Cluster> {
    static ROOMY: OnceCell<Cluster> = OnceCell::const_new();
    ROOMY
        .get_or_try_init(async || {
            let cluster = Cluster::start_with(&ROOM).await?;
            install(&cluster).await?;
            Ok(cluster)
        })
        .await
}

/// What is measured one after another begins with these: at once, and then [`APART`] at least.
pub(crate) fn turns() -> Interval {
    let mut turns = interval(APART);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}

/// The calling thread, and what it starts from now on, gives way to everything else, as far as the system knows that.
#[cfg_attr(not(target_os = "linux"), allow(clippy::unnecessary_wraps))]
pub(crate) fn nice() -> Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::setpriority_process(None, NICE)?;
    Ok(())
}

pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: String,
    /// The same bucket, through the proxy.
    pub(crate) bucket: Bucket,
    fences: Journal,
    _proxy: Proxy,
}

/// A leader, and how often the leadership has changed.
pub(crate) struct Contender {
    pub(crate) name: String,
    pub(crate) leader: Leader,
    transitions: AtomicI32,
}

impl Stage {
    /// On the S3 server, with something added to each request, and an API server that has [`ROOM`].
    pub(crate) async fn on_s3(prefix: &str) -> Result<Self> {
        let cluster = roomy_cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        let server = S3Server::shared().await?;
        server.create_bucket(&namespace)?;
        let proxy = Proxy::to(&server.endpoint())?;
        proxy.on("*", "*").delay(LATENCY);
        Self::set(cluster, namespace, proxy, server.options()).await
    }

    /// On a server in this process's memory, which answers as fast as it can.
    pub(crate) async fn in_memory(prefix: &str, server: &MemoryServer) -> Result<Self> {
        let cluster = cluster().await?;
        let namespace = cluster.namespace(prefix).await?;
        server.create_bucket(&namespace)?;
        // It takes whoever signs; the operator wants credentials.
        let options = [
            ("aws_endpoint", ""),
            ("aws_region", "us-east-1"),
            ("aws_allow_http", "true"),
            ("aws_access_key_id", "bench"),
            ("aws_secret_access_key", "bench"),
        ];
        let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self::set(cluster, namespace, Proxy::to(&server.url())?, options).await
    }

    async fn set(
        cluster: &'static Cluster,
        namespace: String,
        proxy: Proxy,
        mut options: Vec<(String, String)>,
    ) -> Result<Self> {
        let fences = proxy.journal("PUT", "*/_epochwarden/fence/*");
        for (name, value) in &mut options {
            if name == "aws_endpoint" {
                *value = proxy.url();
            }
        }
        let bucket = Bucket::at(&format!("s3://{namespace}/state"), options)?;
        secret(cluster, &namespace, "state", &bucket).await?;
        Ok(Self { cluster, namespace, bucket, fences, _proxy: proxy })
    }

    /// The operator, whose log says little: writing it is not what is measured.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        Operator::start_with(self.cluster, &self.namespace, &[], &[("RUST_LOG", "warn")]).await
    }

    pub(crate) fn spec(&self, name: &str) -> Value {
        let mut store = self.bucket.store(Some("state"));
        store["url"] = format!("{}/{name}", self.bucket.url).into();
        json!({ "store": store, "vnodes": 4, "fence": { "leaseRef": { "name": name } } })
    }

    pub(crate) async fn contender(&self, name: &str) -> Result<Contender> {
        let leader = Leader::new(self.cluster.client().await?, &self.namespace, name);
        leader.lead("pod-0/start", 0).await?;
        Ok(Contender { name: name.into(), leader, transitions: AtomicI32::new(0) })
    }

    /// A policy with its leader, whose fence stands.
    pub(crate) async fn policy(&self, name: &str) -> Result<Contender> {
        let contender = self.contender(name).await?;
        let policy = Policy::apply(self.cluster, &self.namespace, name, self.spec(name)).await?;
        policy.wait_for("FenceCurrent", "Published").await?;
        Ok(contender)
    }

    /// What one PUT of a fence record takes, over a connection that is open already.
    pub(crate) async fn put(&self, count: u64) -> Result<Figures> {
        let below = Root::open(
            &format!("{}/straight", self.bucket.url),
            self.bucket.options.clone(),
            &RootSettings::default(),
        )?;
        let registers = Registers::new(below, "bench");
        let mut measured = Vec::new();
        for version in 1..=count {
            let began = Instant::now();
            registers.publish_fence(epochwarden_core::Version::new(version), "bench", None).await?;
            measured.push(began.elapsed());
        }
        // The first one also lists, and opens the connection.
        Ok(Figures::of(measured.split_off(1)))
    }

    /// Changes the leaders one after another, and measures each change until its record is durable.
    ///
    /// They are [`APART`], so that what a change leaves to be done, its status and its Event, does not count as the next one's.
    /// The operator is asked for its own times only when each leader has changed once: among many policies a scrape is work.
    pub(crate) async fn changes(&self, operator: &Operator, contenders: &[Contender], count: usize) -> Result<Since> {
        let mut measured = Vec::new();
        let mut turns = turns();
        while measured.len() < count {
            let round = &contenders[..contenders.len().min(count - measured.len())];
            ensure!(!round.is_empty(), "nobody leads");
            let before = self.lags(operator).await?;
            let mut durable = Vec::new();
            for contender in round {
                turns.tick().await;
                durable.push(self.change(contender).await?.durable);
            }
            let lags = self.lags_after(operator, round, &before).await?;
            measured.extend(durable.into_iter().zip(lags));
        }
        Ok(Since::of(measured))
    }

    /// Another leader; waits until its record is durable.
    pub(crate) async fn change(&self, contender: &Contender) -> Result<Change> {
        let transitions = contender.transitions.fetch_add(1, Ordering::SeqCst) + 1;
        contender.leader.lead(&format!("pod-{transitions}/start"), transitions).await?;
        let accepted = Instant::now();
        let record = format!("*/{}/_epochwarden/fence/{:020}", contender.name, transitions + 1);
        let durable = until(&record, DEADLINE, async || {
            let passage = self.fences.first(&record)?;
            Some((passage.arrived, passage.answered?))
        });
        let (sent, durable) = durable.await.context("a change of a Lease was missed")?;
        let since = |instant: Instant| instant.saturating_duration_since(accepted);
        Ok(Change { sent: since(sent), durable: since(durable) })
    }

    /// How long the last change took of each policy, as the operator counts it.
    pub(crate) async fn lags(&self, operator: &Operator) -> Result<Lags> {
        let (_, scrape) = operator.get("/metrics").await?;
        let start = format!("epochwarden_fence_last_lag_seconds{{namespace=\"{}\",policy=\"", self.namespace);
        let series = scrape.lines().filter_map(|line| line.strip_prefix(&start)?.split_once("\"} "));
        series.map(|(policy, seconds)| Ok((policy.to_owned(), Duration::from_secs_f64(seconds.parse()?)))).collect()
    }

    /// The same of these leaders, each of whom has changed since `before`.
    pub(crate) async fn lags_after(
        &self,
        operator: &Operator,
        contenders: &[Contender],
        before: &Lags,
    ) -> Result<Vec<Duration>> {
        until("the operator to tell of the changes", DEADLINE, async || {
            let now = self.lags(operator).await.ok()?;
            let told = contenders.iter().map(|contender| {
                let lag = now.get(&contender.name)?;
                // Two changes never take the same time to the nanosecond.
                (before.get(&contender.name) != Some(lag)).then_some(*lag)
            });
            told.collect()
        })
        .await
    }
}

/// From the event received by the operator until it knew the record durable, of each policy by its name.
pub(crate) type Lags = HashMap<String, Duration>;

/// How long after the API server had accepted it a change of a Lease came to the store.
pub(crate) struct Change {
    /// Until the PUT of the record had reached the store.
    pub(crate) sent: Duration,
    /// Until the store had answered it.
    pub(crate) durable: Duration,
}

/// What a process has used so far.
pub(crate) struct Effort {
    at: Instant,
    busy: Duration,
    resident: u64,
}

impl Effort {
    pub(crate) fn of(operator: &Operator) -> Result<Self> {
        let process = PathBuf::from(format!("/proc/{}", operator.process.id()));
        let stat = std::fs::read_to_string(process.join("stat"))?;
        let fields = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace();
        // User and system time, the 14th and 15th field, in hundredths of a second.
        let ticks: u64 = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        let status = std::fs::read_to_string(process.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        Ok(Self {
            at: Instant::now(),
            busy: Duration::from_millis(ticks * 10),
            resident: resident.context("no VmRSS")?.parse()?,
        })
    }

    pub(crate) fn since(&self, before: &Self) -> Spent {
        let (time, busy) = (self.at - before.at, self.busy.saturating_sub(before.busy));
        Spent { cores: busy.as_secs_f64() / time.as_secs_f64(), time, mebibytes: self.resident / 1024 }
    }
}

pub(crate) struct Spent {
    cores: f64,
    time: Duration,
    mebibytes: u64,
}

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, time, mebibytes } = self;
        write!(f, "{:.1} % of a core over {:.0} s, {mebibytes} MiB resident", cores * 100.0, time.as_secs_f64())
    }
}

//! What the end-to-end tests stand on: the real operator, as a process, against a real API server and real stores.

pub(crate) mod away;
pub(crate) mod bucket;
pub(crate) mod census;
pub(crate) mod kills;
pub(crate) mod lease;
pub(crate) mod operator;
pub(crate) mod pipeline;
pub(crate) mod policy;
pub(crate) mod scene;
pub(crate) mod users;

use std::time::Duration;

use anyhow::ensure;
use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::wait::until;
use tokio::sync::OnceCell;

/// How long a test waits for what should come at once. Long, because the machine may be busy; nothing waits longer than it must.
pub(crate) const SOON: Duration = Duration::from_mins(1);

/// The API server of this test binary, with the resource installed.
pub(crate) async fn cluster() -> anyhow::Result<&'static Cluster> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let cluster = Cluster::shared().await?;
    INSTALLED.get_or_try_init(|| install(cluster)).await?;
    Ok(cluster)
}

/// Installs the resource.
pub(crate) async fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let applied =
        cluster.kubectl(&["apply", "--server-side", "-f", concat!(env!("CARGO_MANIFEST_DIR"), "/crds")]).await?;
    ensure!(applied.status.success(), "applying the CRD: {}", applied.stderr);
    let established = cluster
        .kubectl(&["wait", "--for=condition=Established", "crd/stateepochpolicies.epochwarden.io", "--timeout=30s"])
        .await?;
    ensure!(established.status.success(), "waiting for the CRD: {}", established.stderr);
    // Discovery, from which kubectl knows the short name, follows a moment later.
    until("kubectl to know the resource", SOON, async || {
        let known = cluster.kubectl(&["api-resources", "--api-group=epochwarden.io", "--cached=false"]).await;
        known.ok()?.stdout.contains("sep").then_some(())
    })
    .await
}

/// Creates a Secret with the credentials of a bucket.
pub(crate) async fn secret(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    bucket: &bucket::Bucket,
) -> anyhow::Result<()> {
    let credentials = bucket.options.iter().filter(|(key, _)| key.contains("access_key"));
    let entries: Vec<_> = credentials.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    secret_of(cluster, namespace, name, &entries).await
}

/// Creates a Secret with these entries.
pub(crate) async fn secret_of(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    entries: &[(&str, &str)],
) -> anyhow::Result<()> {
    let mut args: Vec<String> = ["-n", namespace, "create", "secret", "generic", name].map(str::to_owned).into();
    args.extend(entries.iter().map(|(key, value)| format!("--from-literal={key}={value}")));
    let created = cluster.kubectl(&args).await?;
    ensure!(created.status.success(), "creating the Secret: {}", created.stderr);
    Ok(())
}

/// Shows a measurement also where the test passes: what is printed by the macros is kept back then.
pub(crate) fn say(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}")
}

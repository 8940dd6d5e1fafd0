//! `controller`: the operator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use epochwarden_store::{AllowedHost, InstanceId, UniqueInstanceId};
use kube::{Client, Config};

use super::exit::{CliError, Exit};
use super::signals;
use super::telemetry::LogFormat;
use super::values;
use crate::controller::{self, Clients, Election, Settings, Surroundings};
use crate::server;

/// How long a connection to the API server may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the API server may be silent after a request. A watch is ended by the server after 290 s, and given up by its watcher 5 s
/// later, so this only meets what nothing else would end.
const READ_TIMEOUT: Duration = Duration::from_mins(5);

/// The same where a connection is not kept: while it is idle, too, the server is silent, and then it is closed.
const UNKEPT: Duration = Duration::from_secs(2);

/// How long writing a request may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

// Of a flag that is given twice the last one counts: a chart has its own, and people add theirs behind them.
/// Runs the operator
#[derive(Debug, Args)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  epochwarden controller
  epochwarden controller --leader-elect
  epochwarden controller --leader-elect=epochwarden-orders --policy-selector team=orders
  epochwarden controller --watch-namespace streaming --allow-ambient-credentials s3://state/")]
pub(super) struct Controller {
    /// Work for the policies of this namespace only; repeatable
    #[arg(long = "watch-namespace", value_name = "NS", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    watch_namespaces: Vec<String>,

    /// Work for the policies whose labels match only, such as team=orders
    #[arg(long, value_name = "SEL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    policy_selector: Option<String>,

    /// Let policies whose URL begins so use the operator's own credentials, without a Secret. A policy that does so and names an
    /// endpoint in its options also needs --allow-endpoint for that host, and one on Azure names its account in the URL; repeatable
    #[arg(long, value_name = "URL-PREFIX", value_parser = values::url_prefix)]
    allow_ambient_credentials: Vec<String>,

    /// Let policies have file:// roots below this folder; repeatable
    #[arg(long = "allow-file-root", value_name = "DIR", value_parser = values::absolute_folder)]
    allow_file_roots: Vec<PathBuf>,

    /// Let policies have stores at this host even where no store is expected: at a link-local address, one of a metadata service or of
    /// the API server, or, in a cluster, on the loopback. It also lets policies that use the operator's own credentials name this host as
    /// their endpoint. A host name or an address, without a port; repeatable
    #[arg(long = "allow-endpoint", value_name = "HOST")]
    allow_endpoints: Vec<AllowedHost>,

    /// How many prunes may run at once, and as many audits beside them: a slow one of either kind keeps none of the other waiting
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_runs: u16,

    /// After how much silence a Lease is fetched
    #[arg(long, value_name = "D", default_value = "10s", value_parser = values::some_duration)]
    lease_poll: Duration,

    /// Stand for election where several operators are started for the same policies: one works, and the others stand by. The Lease of this
    /// name is in the namespace that `POD_NAMESPACE` names, else in the pod's own or the kubeconfig's; operators of different policies need
    /// different names [default name: epochwarden]
    #[arg(
        long,
        value_name = "LEASE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "epochwarden",
        value_parser = values::object_name
    )]
    leader_elect: Option<String>,

    /// Where /livez, /readyz and /metrics are served
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    http: SocketAddr,

    /// The form of the log, on standard error; `RUST_LOG` says what is logged
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(super) log_format: LogFormat,
}

impl Controller {
    pub(super) async fn run(self) -> Result<Exit, CliError> {
        controller::log_panics();
        let shutdown = signals::stop()?;
        let environment = |name: &str| std::env::var(name).ok();
        let address = self.http;
        let listener = server::bind(address).await.map_err(|source| CliError::Bind { address, source })?;
        let config = config().await?;
        let surroundings = Surroundings::observe(&config, environment).await;
        let surroundings = surroundings.map_err(|error| CliError::Cluster { reason: error.to_string() })?;
        let settings = self.settings(environment, surroundings, &config.default_namespace);
        let mut unkept = config.clone();
        unkept.read_timeout = Some(UNKEPT);
        let clients = Clients { usual: client(config.clone())?, afresh: client(unkept)?, watching: client(config)? };
        let run = controller::run(clients, settings, listener, shutdown).await;
        run.map_err(|error| CliError::Operator { reason: format!("{error:#}") })?;
        Ok(Exit::Done)
    }

    fn settings(
        self,
        environment: impl Fn(&str) -> Option<String>,
        surroundings: Surroundings,
        namespace: &str,
    ) -> Settings {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let named = given("POD_NAME").or_else(|| given("HOSTNAME"));
        let instance = named.unwrap_or_else(|| format!("epochwarden-{:08x}", fastrand::u32(..)));
        let election = self.leader_elect.map(|lease| Election {
            namespace: given("POD_NAMESPACE").unwrap_or_else(|| namespace.to_owned()),
            lease,
            candidate: InstanceId::unique(&instance).to_string(),
        });
        Settings {
            watch_namespaces: self.watch_namespaces,
            policy_selector: self.policy_selector,
            allow_ambient_credentials: self.allow_ambient_credentials,
            allow_file_roots: self.allow_file_roots,
            allow_endpoints: self.allow_endpoints,
            surroundings,
            max_concurrent_runs: usize::from(self.max_concurrent_runs),
            lease_poll: self.lease_poll,
            http: self.http,
            instance,
            election,
        }
    }
}

async fn config() -> Result<Config, CliError> {
    let mut config = Config::infer().await.map_err(|error| CliError::Cluster { reason: error.to_string() })?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.write_timeout = Some(WRITE_TIMEOUT);
    // Otherwise the time that a connection was idle would count as the server's silence.
    config.reset_reader_on_write = true;
    Ok(config)
}

fn client(config: Config) -> Result<Client, CliError> {
    Client::try_from(config).map_err(|error| CliError::Cluster { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        controller: Controller,
    }

    fn settings(line: &str, environment: &[(&str, &str)]) -> Settings {
        let line = Line::try_parse_from(["line"].into_iter().chain(line.split_whitespace())).unwrap();
        let environment =
            |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        line.controller.settings(environment, Surroundings::default(), "kube")
    }

    #[test]
    fn without_flags_all_policies_are_worked_for_and_nothing_is_allowed() {
        let settings = settings("", &[]);
        assert!(settings.watch_namespaces.is_empty() && settings.policy_selector.is_none());
        assert!(settings.allow_ambient_credentials.is_empty() && settings.allow_file_roots.is_empty());
        assert!(settings.allow_endpoints.is_empty());
        assert_eq!(settings.max_concurrent_runs, 4);
        assert_eq!(settings.lease_poll, Duration::from_secs(10));
        assert_eq!(settings.http, "0.0.0.0:8080".parse().unwrap());
        assert!(settings.election.is_none());
    }

    #[test]
    fn an_election_is_by_a_lease_of_the_operators_own_namespace_and_every_start_is_another_candidate() {
        for (line, environment, lease, namespace) in [
            ("--leader-elect", &[][..], "epochwarden", "kube"),
            ("--leader-elect=orders", &[("POD_NAMESPACE", "")][..], "orders", "kube"),
            (
                "--leader-elect=orders.v2",
                &[("POD_NAMESPACE", "system"), ("POD_NAME", "pod-1")][..],
                "orders.v2",
                "system",
            ),
        ] {
            let (one, other) = (settings(line, environment), settings(line, environment));
            let (instance, one, other) = (one.instance, one.election.unwrap(), other.election.unwrap());
            assert_eq!((one.lease.as_str(), one.namespace.as_str()), (lease, namespace), "{line}");
            assert!(one.candidate.starts_with(&format!("{instance}-")), "{one:?}");
            assert_ne!(one.candidate, other.candidate, "{line}");
        }
    }

    #[test]
    fn every_flag_is_a_setting() {
        let settings = settings(
            "--watch-namespace a --watch-namespace b --policy-selector team=orders --allow-ambient-credentials s3://state/ \
             --allow-ambient-credentials gs://x --allow-file-root /var/a --allow-file-root /var/b --allow-endpoint MinIO \
             --allow-endpoint ::1 --max-concurrent-runs 1 --lease-poll 3s --http 127.0.0.1:0",
            &[],
        );
        assert_eq!(settings.watch_namespaces, ["a", "b"]);
        assert_eq!(settings.policy_selector.as_deref(), Some("team=orders"));
        assert_eq!(settings.allow_ambient_credentials, ["s3://state/", "gs://x"]);
        assert_eq!(settings.allow_file_roots, [PathBuf::from("/var/a"), PathBuf::from("/var/b")]);
        assert_eq!(settings.allow_endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), ["minio", "::1"]);
        assert_eq!(settings.max_concurrent_runs, 1);
        assert_eq!(settings.lease_poll, Duration::from_secs(3));
        assert_eq!(settings.http, "127.0.0.1:0".parse().unwrap());
    }

    #[test]
    fn the_instance_is_the_pod_or_the_host_or_something_new() {
        assert_eq!(settings("", &[("POD_NAME", "pod-1"), ("HOSTNAME", "host")]).instance, "pod-1");
        assert_eq!(settings("", &[("POD_NAME", ""), ("HOSTNAME", "host")]).instance, "host");
        let (one, other) = (settings("", &[]).instance, settings("", &[]).instance);
        assert!(one.starts_with("epochwarden-") && one != other, "{one} {other}");
    }
}

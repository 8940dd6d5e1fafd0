//! The harness itself: servers start, keep apart, and go.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what went wrong by failing, and so do their helpers")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use epochwarden_testkit::apiserver::Cluster;
use epochwarden_testkit::process::Process;
use epochwarden_testkit::s3server::S3Server;
use epochwarden_testkit::wait;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

const DEADLINE: Duration = Duration::from_secs(30);

fn is_running(id: u32) -> bool {
    let status = Command::new("sh").args(["-c", r#"kill -0 "$0""#, &id.to_string()]).stderr(Stdio::null()).status();
    status.unwrap().success()
}

fn s3_client(server: &S3Server, bucket: &str) -> AmazonS3 {
    let builder = AmazonS3Builder::new().with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    let options = server.options().into_iter();
    options.fold(builder, |builder, (name, value)| builder.with_config(name.parse().unwrap(), value)).build().unwrap()
}

#[tokio::test]
async fn kubectl_and_the_client_see_the_same_cluster() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = cluster.namespace("harness").await.unwrap();

    let listed = cluster.kubectl(&["get", "namespaces", "-o", "name"]).await.unwrap();
    assert!(listed.status.success(), "{listed:?}");
    assert!(listed.stdout.lines().any(|line| line == format!("namespace/{namespace}")), "{listed:?}");

    let manifest = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "piped"}, "data": {"a": "1"}}"#;
    let applied = cluster.kubectl_stdin(&["apply", "-n", &namespace, "-f", "-"], manifest).await.unwrap();
    assert!(applied.status.success(), "{applied:?}");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await.unwrap(), &namespace);
    assert_eq!(maps.get("piped").await.unwrap().data.unwrap()["a"], "1");

    let version = cluster.kubectl(&["version"]).await.unwrap();
    assert_eq!(version.stdout.matches("v1.37.2").count(), 2, "client and server: {version:?}");
}

#[tokio::test]
async fn who_brings_no_known_token_is_refused() {
    let cluster = Cluster::shared().await.unwrap();
    let kubeconfig = cluster.kubeconfig_for("stranger", "not-a-token").unwrap();
    let refused = cluster.kubectl(&["--kubeconfig", kubeconfig.to_str().unwrap(), "get", "namespaces"]).await.unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert!(refused.stderr.contains("Unauthorized") || refused.stderr.contains("logged in"), "{refused:?}");
}

#[tokio::test]
async fn two_clusters_at_once_know_nothing_of_each_other_and_are_gone_when_dropped() {
    let (one, two) = tokio::try_join!(Cluster::start(), Cluster::start()).unwrap();
    assert_ne!(one.url(), two.url());
    let namespace = one.namespace("only-in-one").await.unwrap();
    let elsewhere: Api<Namespace> = Api::all(two.client().await.unwrap());
    assert!(elsewhere.get_opt(&namespace).await.unwrap().is_none());

    let ids = one.process_ids();
    let folder = one.kubeconfig().parent().map(Path::to_path_buf).unwrap();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().all(|&id| is_running(id)) && folder.is_dir());
    drop(one);
    assert!(!ids.iter().any(|&id| is_running(id)), "{ids:?} outlived the cluster");
    assert!(!folder.exists());
    let still = two.kubectl(&["get", "namespaces"]).await.unwrap();
    assert!(still.status.success(), "{still:?}");
}

#[tokio::test]
async fn an_api_server_that_was_away_comes_back_with_its_address_and_its_data() {
    let cluster = Cluster::start().await.unwrap();
    let url = cluster.url();
    let namespace = cluster.namespace("kept").await.unwrap();

    cluster.stop_apiserver().unwrap();
    let away = cluster.kubectl(&["get", "namespaces", "--request-timeout=5s"]).await.unwrap();
    assert!(!away.status.success(), "{away:?}");

    cluster.start_apiserver().await.unwrap();
    assert_eq!(cluster.url(), url);
    let namespaces: Api<Namespace> = Api::all(cluster.client().await.unwrap());
    assert!(namespaces.get_opt(&namespace).await.unwrap().is_some());
}

#[tokio::test]
async fn of_many_racing_creates_on_the_s3_server_one_wins() {
    let server = S3Server::shared().await.unwrap();
    server.create_bucket("race").unwrap();
    let (client, key) = (s3_client(server, "race"), Key::from("epoch=1/_COMMIT"));
    let creates = (0..32).map(|writer: u8| client.put_opts(&key, vec![writer].into(), PutMode::Create.into()));
    let results = futures::future::join_all(creates).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
    let winner = results.iter().position(Result::is_ok).unwrap();
    let body = client.get(&key).await.unwrap().bytes().await.unwrap();
    assert_eq!(usize::from(body[0]), winner);
}

#[tokio::test]
async fn a_bucket_that_was_not_created_is_not_there() {
    let server = S3Server::shared().await.unwrap();
    let client = s3_client(server, "never-created");
    let error = client.put(&Key::from("a"), "x".into()).await.unwrap_err();
    assert!(error.to_string().contains("NoSuchBucket"), "{error}");
}

#[tokio::test]
async fn a_process_that_ends_before_it_is_ready_shows_the_end_of_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo first; echo 'port 1 is taken' >&2; exit 3"]);
    let mut process = Process::spawn("sh", &mut command, &folder.path().join("log")).unwrap();
    let error = process.wait_ready(DEADLINE, async || false).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("port 1 is taken"), "{error}");
}

#[tokio::test]
async fn a_signal_reaches_the_process_and_its_exit_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "trap 'echo said goodbye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"]);
    let mut process = Process::spawn("sh", &mut command, &folder.path().join("log")).unwrap();
    wait::until("the trap is set", DEADLINE, async || process.log().contains("ready").then_some(())).await.unwrap();
    process.signal("TERM").unwrap();
    assert_eq!(process.wait_exit(DEADLINE).await.unwrap().code(), Some(7));
    assert!(process.log().contains("said goodbye"));
}

#[tokio::test]
async fn a_process_that_listens_hears_what_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "read -r one; read -r two; echo heard $two after $one"]);
    let mut process = Process::spawn_listening("sh", &mut command, &folder.path().join("log")).unwrap();
    process.tell("pause").unwrap();
    process.tell("resume").unwrap();
    process.wait_exit(DEADLINE).await.unwrap();
    assert_eq!(process.log(), "heard resume after pause\n");
}

/// What the playground prints: the ids of its servers and the folder of its cluster.
fn read_playground(output: impl std::io::Read) -> (Vec<u32>, PathBuf) {
    let mut folder = None;
    for line in BufReader::new(output).lines().map(Result::unwrap) {
        if let Some(path) = line.strip_prefix("export KUBECONFIG='") {
            folder = Path::new(path.trim_end_matches('\'')).parent().map(Path::to_path_buf);
        }
        if let Some(ids) = line.strip_prefix("# processes: ") {
            return (ids.split(' ').map(|id| id.parse().unwrap()).collect(), folder.unwrap());
        }
    }
    panic!("the playground ended before it was ready");
}

#[tokio::test]
async fn servers_and_folders_are_gone_after_their_process_was_killed() {
    let mut playground =
        Command::new(env!("CARGO_BIN_EXE_playground")).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let output = playground.stdout.take().unwrap();
    let (ids, folder) = tokio::task::spawn_blocking(move || read_playground(output)).await.unwrap();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|&id| is_running(id)) && folder.is_dir());

    playground.kill().unwrap();
    assert_eq!(playground.wait().unwrap().signal(), Some(9));
    wait::until("the servers are gone", DEADLINE, async || (!ids.iter().any(|&id| is_running(id))).then_some(()))
        .await
        .unwrap();
    wait::until("the folder is gone", DEADLINE, async || (!folder.exists()).then_some(())).await.unwrap();
}

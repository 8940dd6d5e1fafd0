//! With what the servers of a node are started.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::namespaces::{NODE_ADDRESS, SERVICE_ADDRESS, cgroup};
use super::{PAUSE, write};
use crate::tools;

/// The Services' addresses, of which the API server has the first.
const SERVICE_RANGE: &str = "10.78.0.0/24";
const POD_RANGE: &str = "10.79.0.0/24";

/// Writes all files that the servers read.
pub(super) fn write_all(folder: &Path) -> anyhow::Result<()> {
    tools::output(Command::new("openssl").args(["genrsa", "-out"]).arg(folder.join("accounts.key")).arg("2048"))?;
    let (admin, node) = (tools::random_hex()?, tools::random_hex()?);
    let tokens = format!("{admin},admin,admin,system:masters\n{node},system:node:node,node,system:nodes\n");
    write(&folder.join("tokens.csv"), &tokens)?;
    for (user, token) in [("admin", admin), ("node", node)] {
        write(&folder.join(format!("{user}.kubeconfig")), &format!("{:#}\n", kubeconfig(folder, user, &token)))?;
    }
    write(&folder.join("resolv.conf"), "")?;
    write(&folder.join("kubelet.json"), &format!("{:#}\n", kubelet_configuration(folder)?))?;
    write(&folder.join("containerd.toml"), &containerd(folder)?)?;
    fs::create_dir(folder.join("cni"))?;
    write(&folder.join("cni/10-bridge.conflist"), &format!("{:#}\n", network(folder)))
}

pub(super) fn apiserver(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    vec![
        format!("--bind-address={SERVICE_ADDRESS}"),
        "--secure-port=443".into(),
        format!("--advertise-address={NODE_ADDRESS}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        // The Service's address is the server's own: no endpoint has to stand behind it.
        "--endpoint-reconciler-type=none".into(),
        "--authorization-mode=Node,RBAC".into(),
        "--anonymous-auth=false".into(),
        "--profiling=false".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--cert-dir={folder}/certificates"),
        format!("--token-auth-file={folder}/tokens.csv"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={folder}/accounts.key"),
        format!("--service-account-signing-key-file={folder}/accounts.key"),
    ]
}

pub(super) fn controllers(folder: &Path) -> Vec<String> {
    let mut arguments = elected_alone(folder);
    let folder = folder.display();
    arguments.push(format!("--root-ca-file={folder}/certificates/apiserver.crt"));
    arguments.push(format!("--service-account-private-key-file={folder}/accounts.key"));
    arguments
}

pub(super) fn scheduler(folder: &Path) -> Vec<String> {
    elected_alone(folder)
}

fn elected_alone(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    let kubeconfig = format!("{folder}/admin.kubeconfig");
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".into(),
        "--leader-elect=false".into(),
    ]
}

pub(super) fn kubelet(folder: &Path) -> Vec<String> {
    let folder = folder.display();
    vec![
        format!("--config={folder}/kubelet.json"),
        format!("--kubeconfig={folder}/node.kubeconfig"),
        format!("--root-dir={folder}/kubelet"),
        format!("--cert-dir={folder}/kubelet-certificates"),
        "--hostname-override=node".into(),
        format!("--node-ip={NODE_ADDRESS}"),
    ]
}

fn kubeconfig(folder: &Path, user: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "node", "cluster": {
            "server": format!("https://{SERVICE_ADDRESS}"),
            "certificate-authority": folder.join("certificates/apiserver.crt"),
        } }],
        "users": [{ "name": user, "user": { "token": token } }],
        "contexts": [{ "name": "node", "context": { "cluster": "node", "user": user } }],
        "current-context": "node",
    })
}

fn kubelet_configuration(folder: &Path) -> anyhow::Result<Value> {
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "address": NODE_ADDRESS,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup()?),
        "enforceNodeAllocatable": ["none"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": 0,
        "resolvConf": folder.join("resolv.conf"),
        "volumePluginDir": folder.join("plugins"),
        // The machine's disk is not this node's: however full it is, nothing is evicted for it.
        "evictionHard": { "memory.available": "1Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%" },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }))
}

fn containerd(folder: &Path) -> anyhow::Result<String> {
    let plugins = tools::extra("bridge")?;
    let plugins = plugins.with_file_name("");
    let runc = tools::extra("runc")?;
    Ok(format!(
        r"version = 3
root = '{root}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
# Even root may not lower a score here.
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{networks}'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{runc}'
SystemdCgroup = false
",
        root = folder.join("containerd").display(),
        plugins = plugins.display(),
        networks = folder.join("cni").display(),
        runc = runc.display(),
    ))
}

fn network(folder: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isDefaultGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": folder.join("addresses"),
                "ranges": [[{ "subnet": POD_RANGE }]],
            },
        }],
    })
}

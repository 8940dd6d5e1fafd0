//! The pinned third-party servers: where they are.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};

/// The environment variable that names the folder holding every tool. `make` sets it.
pub const TOOLS_BIN: &str = "EPOCHWARDEN_TOOLS_BIN";

/// The path of one tool: `kube-apiserver`, `kubectl`, `etcd` or `versitygw`.
///
/// Without [`TOOLS_BIN`] in the environment the build script is asked where it put them. Nothing is built here, since a test
/// that compiles a server for minutes looks like a test that hangs: what is missing is an error that says `make tools`.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(path.is_file(), "{} is not there: run `make tools`", path.display());
    Ok(path)
}

/// The path of a tool that the demo does not need, as `minio`, `helm` or `kubelet`. It is not built here either.
pub fn extra(name: &str) -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(output(Command::new(script()).args(["--print", name]))?.trim_end()))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/build.sh")
}

fn folder() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(named) = std::env::var_os(TOOLS_BIN).filter(|value| !value.is_empty()) {
        return Ok(PathBuf::from(named));
    }
    if let Some(known) = BUILT.get() {
        return Ok(known.clone());
    }
    let printed = output(Command::new(script()).arg("--dir"))?;
    Ok(BUILT.get_or_init(|| PathBuf::from(printed.trim_end())).clone())
}

/// What a short command printed, or an error with what it said on standard error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_owned();
    let program = Path::new(&program).file_name().unwrap_or(OsStr::new("?")).to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} printed something that is not text"))
}

/// What a short command makes of a few bytes on its standard input.
pub(crate) fn filter(program: &str, arguments: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().with_context(|| format!("{program} has no standard input"))?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(output.stdout)
}

/// Bytes as two hexadecimal digits each.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// 32 hexadecimal digits that nobody can guess: on the loopback interface other users of the machine can knock as well.
pub(crate) fn random_hex() -> anyhow::Result<String> {
    let printed = output(Command::new("openssl").args(["rand", "-hex", "16"]))?;
    let digits = printed.trim_end();
    ensure!(digits.len() == 32, "openssl rand printed {digits:?}");
    Ok(digits.to_owned())
}

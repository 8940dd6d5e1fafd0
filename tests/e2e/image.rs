//! The container image: what is in it, and that the binary finds all it needs there.
//!
//! For these tests an image has to be there and root to be the user, since its files become the root folder of a process: `make image-test`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use epochwarden_testkit::s3server::S3Server;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UdpSocket;

use crate::support::bucket::Bucket;
use crate::support::say;

/// The variable that names the archive.
const ARCHIVE: &str = "EPOCHWARDEN_IMAGE";

/// The user of the image.
const USER: &str = "65532:65532";

/// Where the image keeps the authorities that it trusts.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// The most bytes that the archive may have.
const LIMIT: u64 = 40_000_000;

/// An image, unpacked.
struct Image {
    folder: TempDir,
    config: Value,
}

impl Image {
    /// Unpacks the image; `None`, and says why, where there is nothing to test.
    fn unpacked() -> Result<Option<Self>> {
        let Some(archive) = std::env::var_os(ARCHIVE) else {
            say(&format!("skipped: {ARCHIVE} names no image; `make image-test` makes one and tests it"))?;
            return Ok(None);
        };
        let user = Command::new("id").arg("-u").output()?;
        if user.stdout.trim_ascii() != b"0" {
            say("skipped: only root may give a process another root folder")?;
            return Ok(None);
        }
        let archive = Path::new(&archive);
        let size = fs::metadata(archive).with_context(|| archive.display().to_string())?.len();
        ensure!(size < LIMIT, "the archive has {size} bytes");
        let folder = tempfile::tempdir()?;
        let oci = folder.path().join("oci");
        untar(archive, &oci, false)?;
        let index = json_of(&oci.join("index.json"))?;
        ensure!(index["manifests"].as_array().map(Vec::len) == Some(1), "{index:#}");
        let image = &index["manifests"][0];
        for name in ["io.containerd.image.name", "org.opencontainers.image.ref.name"] {
            ensure!(image["annotations"][name] == "localhost/epochwarden:dev", "{index:#}");
        }
        let manifest = json_of(&blob(&oci, &image["digest"])?)?;
        let config = json_of(&blob(&oci, &manifest["config"]["digest"])?)?;
        let layers = manifest["layers"].as_array().context("there are no layers")?;
        ensure!(layers.len() == 1, "{manifest:#}");
        untar(&blob(&oci, &layers[0]["digest"])?, &folder.path().join("root"), true)?;
        Ok(Some(Self { folder, config }))
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        Ok(fs::write(self.root().join(file), content)?)
    }

    /// Adds what every container runtime adds of the devices that a program may ask for: random numbers.
    fn with_devices(self) -> Result<Self> {
        fs::create_dir(self.root().join("dev"))?;
        for (device, minor) in [("random", "8"), ("urandom", "9")] {
            let file = self.root().join("dev").join(device);
            let made = Command::new("mknod").args(["-m", "666"]).arg(file).args(["c", "1", minor]).output()?;
            ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Ok(self)
    }

    /// Runs the program of the image as its user, in its files and with nothing else.
    async fn run(&self, args: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut command = tokio::process::Command::new("chroot");
        command.arg(format!("--userspec={USER}")).arg(self.root()).arg("/epochwarden").args(args);
        command.env_clear().envs(environment.iter().copied()).kill_on_drop(true);
        // The program that changes the root folder is looked for before that.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(tokio::time::timeout(crate::support::SOON, command.output()).await.context("it has not ended")??)
    }

    /// The newest sealed epoch of a bucket, by the program of the image, which reaches the store at `endpoint`.
    async fn latest(&self, bucket: &Bucket, endpoint: &str, environment: &[(&str, &str)]) -> Result<Output> {
        let options: Vec<String> = bucket
            .options
            .iter()
            .map(|(key, value)| format!("{key}={}", if key == "aws_endpoint" { endpoint } else { value }))
            .collect();
        let mut args = vec!["latest", "--store", bucket.url.as_str()];
        for option in &options {
            args.extend(["--store-option", option]);
        }
        self.run(&args, environment).await
    }
}

fn json_of(file: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(file)?).with_context(|| file.display().to_string())
}

/// The blob of this digest, which its content has to have.
fn blob(oci: &Path, digest: &Value) -> Result<PathBuf> {
    let digest = digest.as_str().and_then(|digest| digest.strip_prefix("sha256:")).context("no digest")?;
    let file = oci.join("blobs/sha256").join(digest);
    let summed = Command::new("sha256sum").arg(&file).output()?;
    ensure!(String::from_utf8(summed.stdout)?.starts_with(digest), "{} has another digest", file.display());
    Ok(file)
}

fn untar(archive: &Path, folder: &Path, zipped: bool) -> Result<()> {
    fs::create_dir(folder)?;
    let mut command = Command::new("tar");
    command.args(zipped.then_some("--gzip")).arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder);
    let done = command.output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

fn printed(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A name server on an address of the loopback that nobody else uses, which knows one name. Answers until it is dropped.
struct Names {
    address: Ipv4Addr,
    task: tokio::task::JoinHandle<()>,
}

impl Names {
    async fn knowing(name: &'static str) -> Result<Self> {
        let address = Ipv4Addr::new(127, 53, fastrand::u8(..), fastrand::u8(1..255));
        let socket = UdpSocket::bind(SocketAddr::from((address, 53))).await.context("a port for names")?;
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let _ = socket.send_to(&answer(&question[..length], name), from).await;
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a question for an address: 127.0.0.1 for `name`, nothing for what else is asked of it, and that there is no other.
fn answer(question: &[u8], name: &str) -> Vec<u8> {
    let encoded: Vec<u8> = name
        .split('.')
        .flat_map(|label| [u8::try_from(label.len()).unwrap()].into_iter().chain(label.bytes()))
        .chain([0])
        .collect();
    // One question: the name, its type and its class.
    let asked = &question[12..12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5];
    let known = asked.to_ascii_lowercase().starts_with(&encoded);
    let is_address = asked.ends_with(&[0, 1, 0, 1]);
    let answers = u8::from(known && is_address);
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(asked);
    if answers == 1 {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

#[tokio::test]
async fn the_image_has_a_static_binary_certificates_and_nothing_else_and_runs_as_nobody() -> Result<()> {
    let Some(image) = Image::unpacked()? else { return Ok(()) };
    let mut files = Vec::new();
    let mut folders = vec![image.root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(image.root())?.display().to_string());
            }
        }
    }
    files.sort();
    ensure!(files == ["epochwarden", "etc/nsswitch.conf", BUNDLE].map(str::to_owned), "{files:?}");
    let config = &image.config["config"];
    ensure!(config["User"] == USER && config["Entrypoint"] == json!(["/epochwarden"]), "{config:#}");
    for label in ["title", "description", "version", "revision", "created", "licenses"] {
        let value = config["Labels"][format!("org.opencontainers.image.{label}")].as_str().unwrap_or_default();
        ensure!(!value.is_empty(), "the label {label}: {config:#}");
    }
    let version = image.run(&["--version"], &[]).await?;
    ensure!(version.status.success() && printed(&version).contains(env!("CARGO_PKG_VERSION")), "{}", printed(&version));
    let binary = fs::read(image.root().join("epochwarden"))?;
    for needle in [concat!(env!("CARGO_MANIFEST_DIR"), "/"), concat!(env!("HOME"), "/.cargo")] {
        let found = binary.windows(needle.len()).position(|part| part == needle.as_bytes());
        let near = found.map(|at| String::from_utf8_lossy(&binary[at..binary.len().min(at + 200)]).into_owned());
        ensure!(near.is_none(), "a path of the machine it was built on is in the binary: {near:?}");
    }
    Ok(())
}

/// What the last stage of the Dockerfile says of its image, as an image's configuration says it. What a build is told stands there by its
/// name.
fn by_the_dockerfile() -> Result<Value> {
    let dockerfile = include_str!("../../Dockerfile").replace("\\\n", " ");
    let (_, last) = dockerfile.split_once("\nFROM scratch\n").context("no stage begins with nothing")?;
    let mut config = json!({ "ExposedPorts": {}, "Labels": {} });
    for line in last.lines() {
        let (instruction, said) = line.split_once(' ').with_context(|| line.to_owned())?;
        match instruction {
            "ARG" | "COPY" => {}
            "ENV" => config["Env"] = json!([said]),
            "WORKDIR" => config["WorkingDir"] = said.into(),
            "EXPOSE" => config["ExposedPorts"][format!("{said}/tcp")] = json!({}),
            "USER" => config["User"] = said.into(),
            "ENTRYPOINT" => config["Entrypoint"] = serde_json::from_str(said)?,
            "LABEL" => {
                // A value with spaces is quoted, and has no other quotes in it.
                for label in said.split(" org.").map(str::trim) {
                    let (name, value) = label.split_once('=').with_context(|| label.to_owned())?;
                    config["Labels"][format!("org.{}", name.trim_start_matches("org."))] =
                        value.trim_matches('"').into();
                }
            }
            _ => bail!("an instruction that is not compared: {line}"),
        }
    }
    Ok(config)
}

#[test]
fn the_dockerfile_lays_out_the_same_files_with_the_same_toolchain() {
    let dockerfile = include_str!("../../Dockerfile");
    let toolchain = include_str!("../../rust-toolchain.toml");
    let rust = toolchain.split('"').nth(1).unwrap();
    for said in
        [format!("/rust:{rust}-"), "RUN tools/image.sh --files /image\n".into(), "COPY --from=build /image/ /\n".into()]
    {
        assert!(dockerfile.contains(&said), "{said} is not in the Dockerfile");
    }
    let labels = by_the_dockerfile().unwrap()["Labels"].take();
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(labels["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
}

#[test]
fn the_dockerfile_says_of_its_image_what_the_archive_says() -> Result<()> {
    let Some(image) = Image::unpacked()? else { return Ok(()) };
    let mut config = image.config["config"].clone();
    for (label, told) in [("revision", "$REVISION"), ("created", "$CREATED")] {
        config["Labels"][format!("org.opencontainers.image.{label}")] = told.into();
    }
    ensure!(config == by_the_dockerfile()?, "{config:#}\n{:#}", by_the_dockerfile()?);
    Ok(())
}

#[tokio::test]
async fn inside_of_the_image_names_are_looked_up_in_files_and_by_name_servers() -> Result<()> {
    let Some(image) = Image::unpacked()? else { return Ok(()) };
    let image = image.with_devices()?;
    let server = S3Server::shared().await?;
    let bucket = Bucket::s3("image-names").await?;
    bucket.seal(1..=3, 2).await?;
    let port = server.endpoint().rsplit_once(':').context("an endpoint without a port")?.1.to_owned();
    let at = |name: &str| format!("http://{name}:{port}");

    let names = Names::knowing("store.names.test").await?;
    image.write("etc/hosts", "127.0.0.1 store.files.test\n")?;
    image.write("etc/resolv.conf", &format!("nameserver {}\n", names.address))?;
    for name in ["store.files.test", "store.names.test"] {
        let found = image.latest(&bucket, &at(name), &[]).await?;
        ensure!(found.status.success() && found.stdout.trim_ascii() == b"3", "{name}: {}", printed(&found));
    }
    let missing = image.latest(&bucket, &at("elsewhere.names.test"), &[]).await?;
    let said = printed(&missing);
    ensure!(
        missing.status.code() == Some(1) && said.contains("lookup") && said.contains("check the endpoint"),
        "{said}"
    );
    Ok(())
}

#[tokio::test]
async fn inside_of_the_image_a_private_authority_is_trusted_where_it_is_named_and_only_there() -> Result<()> {
    let Some(image) = Image::unpacked()? else { return Ok(()) };
    let image = image.with_devices()?;
    let server = S3Server::with_tls().await?;
    let bucket = Bucket::on(&server, "image-tls")?;
    bucket.seal(1..=3, 2).await?;
    let ca = server.ca().context("a server with TLS has an authority")?;
    let is_found = |output: &Output| output.status.success() && output.stdout.trim_ascii() == b"3";

    let refused = image.latest(&bucket, &server.endpoint(), &[]).await?;
    let said = printed(&refused);
    ensure!(!refused.status.success() && said.contains("certificate"), "{said}");
    ensure!(!said.contains("panicked") && said.lines().count() < 6, "{said}");

    image.write("ca.crt", ca)?;
    let named = image.latest(&bucket, &server.endpoint(), &[("SSL_CERT_FILE", "/ca.crt")]).await?;
    ensure!(is_found(&named), "{}", printed(&named));

    // The image's own bundle is where the program looks: what is added to it is trusted, beside all that was there.
    let bundle = fs::read_to_string(image.root().join(BUNDLE))?;
    ensure!(bundle.matches("BEGIN CERTIFICATE").count() > 50, "these are not the authorities of the world");
    image.write(BUNDLE, &format!("{bundle}\n{ca}"))?;
    let bundled = image.latest(&bucket, &server.endpoint(), &[]).await?;
    ensure!(is_found(&bundled), "{}", printed(&bundled));
    Ok(())
}

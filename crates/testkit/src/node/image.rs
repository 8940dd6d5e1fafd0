//! Small images, made without an engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::{Value, json};

use crate::tools;

/// An image from scratch: one program and a few files. The same content gives the same bytes.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// By what name pods ask for it.
    pub reference: &'a str,
    /// The program that is its entry point: static, or with its [`libraries`] among the files.
    pub program: &'a Path,
    /// More files, each with its path inside, without the leading slash.
    pub files: &'a [(&'a str, &'a Path)],
}

impl Image<'_> {
    /// Writes the image as an archive in OCI's layout to `folder`, and returns its path. Pods run it as the user 65532.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let name = self.program.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        let work = tempfile::tempdir_in(folder)?;
        let (root, layout) = (work.path().join("root"), work.path().join("layout"));
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        fs::create_dir(&root)?;
        for (path, source) in [(name, self.program)].iter().chain(self.files) {
            let target = root.join(path);
            fs::create_dir_all(target.parent().context("a file of an image has no folder")?)?;
            fs::copy(source, &target).with_context(|| format!("copying {} into an image", source.display()))?;
        }
        let layer = work.path().join("layer.tar");
        pack(&root, &layer)?;
        let (layer, size) = add(&blobs, &fs::read(&layer)?)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": { "User": "65532:65532", "Entrypoint": [format!("/{name}")], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [layer] },
        });
        let (config, config_size) = add(&blobs, config.to_string().as_bytes())?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config, config_size),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer, size)],
        });
        let (manifest, manifest_size) = add(&blobs, manifest.to_string().as_bytes())?;
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest, manifest_size);
        let names =
            json!({ "io.containerd.image.name": self.reference, "org.opencontainers.image.ref.name": self.reference });
        listed.as_object_mut().context("a descriptor is an object")?.insert("annotations".into(), names);
        fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [listed] }).to_string())?;
        fs::write(layout.join("oci-layout"), json!({ "imageLayoutVersion": "1.0.0" }).to_string())?;
        let archive = folder.join(format!("{name}-image.tar"));
        pack(&layout, &archive)?;
        Ok(archive)
    }
}

/// Compiles one file of Rust to a static program in `folder`.
pub fn compile(folder: &Path, name: &str, source: &str) -> anyhow::Result<PathBuf> {
    let file = folder.join(format!("{name}.rs"));
    fs::write(&file, source)?;
    let program = folder.join(name);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "-Copt-level=s", "-Cstrip=symbols", "-Ctarget-feature=+crt-static", "-o"]);
    // The pinned compiler is named by a file of the workspace.
    rustc.arg(&program).arg(&file).current_dir(env!("CARGO_MANIFEST_DIR"));
    tools::output(&mut rustc).with_context(|| format!("compiling {name}"))?;
    Ok(program)
}

/// The shared libraries of a program, each with its path inside of an image: that of here, without the leading slash.
pub fn libraries(program: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let listed = tools::output(Command::new("ldd").arg(program))?;
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(|path| (path.trim_start_matches('/').to_owned(), PathBuf::from(path))).collect())
}

fn pack(folder: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    tar.args(["--mode=u=rwX,go=rX", "--directory"]).arg(folder).arg("--file").arg(archive).arg(".");
    tools::output(&mut tar).map(drop)
}

/// Adds a blob, and says by which digest it goes and how long it is.
fn add(blobs: &Path, content: &[u8]) -> anyhow::Result<(String, usize)> {
    let digest = tools::hex(&tools::filter("openssl", &["dgst", "-sha256", "-binary"], content)?);
    fs::write(blobs.join(&digest), content)?;
    Ok((format!("sha256:{digest}"), content.len()))
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        "x86_64" => "amd64",
        other => other,
    }
}

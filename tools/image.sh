#!/usr/bin/env bash
# Makes the container image, from files alone: no container engine and no root is asked for, and the same sources give the same bytes.
#
#   tools/image.sh                build the binary and write dist/epochwarden-image.tar, an OCI archive
#   tools/image.sh --files DIR    only lay out the files of the image below DIR, for the Dockerfile
#   tools/image.sh --check        build a second time, in another folder, and compare the digests
#
# SOURCE_DATE_EPOCH and REVISION say when and of what the image was made; without them the last commit does.
# CA_BUNDLE names the certificates of the authorities that are trusted inside; without it this system's are taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

reference=localhost/epochwarden:dev
archive=dist/epochwarden-image.tar

# The most that the archive may have.
limit=$((40 * 1000 * 1000))

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

digest_of() { sha256sum "$1" | cut -d ' ' -f 1; }

host=$(rustc -vV | sed -n 's/^host: //p')
case $host in
  x86_64-*-linux-*) architecture=amd64 ;;
  aarch64-*-linux-*) architecture=arm64 ;;
  *) fail "An image holds a binary for Linux, and this is $host: build it on Linux, or with the Dockerfile." ;;
esac

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

# A binary that needs no file of the system. Which folders it was built in is not in it.
build_binary() {
  local target cargo folder flags=(-C target-feature=+crt-static) c_flags=()
  target=$(tools/target-dir.sh)
  cargo=${CARGO_HOME:-$HOME/.cargo}
  # Of prefixes that match, the last counts.
  for folder in "$cargo=/cargo" "$PWD=/epochwarden" "$target=/target"; do
    flags+=("--remap-path-prefix=$folder")
    c_flags+=("-ffile-prefix-map=$folder")
  done
  # With the target named, these are not for build scripts and macros, which cannot be static.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf '%s' "${flags[*]}") \
    env "CFLAGS_${host//-/_}=${c_flags[*]}" "CXXFLAGS_${host//-/_}=${c_flags[*]}" \
    cargo build --release --locked --target "$host" --package epochwarden --bin epochwarden >&2
  printf '%s\n' "$target/$host/release/epochwarden"
}

# The certificates that programs of this system trust, wherever it keeps them.
ca_bundle() {
  local file
  for file in ${CA_BUNDLE:+"$CA_BUNDLE"} /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem \
    /etc/ssl/cert.pem; do
    if [[ -s $file ]]; then
      printf '%s\n' "$file"
      return
    fi
  done
  fail "There are no certificates of authorities here: install the package ca-certificates, or name a file with CA_BUNDLE."
}

lay_out() {
  local root=$1 binary bundle
  bundle=$(ca_bundle)
  binary=$(build_binary)
  # What is not static would only be found out in the container.
  if command -v readelf >/dev/null && [[ $(readelf --program-headers "$binary") == *INTERP* ]]; then
    fail "$binary is not static: it asks for an interpreter."
  fi
  [[ ! -e $root ]] || fail "$root is there already."
  mkdir -p "$root/etc/ssl/certs"
  install -m 755 "$binary" "$root/epochwarden"
  install -m 644 "$bundle" "$root/etc/ssl/certs/ca-certificates.crt"
  # Names are looked up in /etc/hosts first, whatever the C library would do by itself.
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  chmod 755 "$root" "$root/etc" "$root/etc/ssl" "$root/etc/ssl/certs"
  chmod 644 "$root/etc/nsswitch.conf"
}

# A tar archive of a folder that is the same whenever and by whomever it is made.
pack() {
  local folder=$1
  shift
  tar --create --format=ustar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
    --mode=u=rwX,go=rX --directory="$folder" "$@"
}

# Puts a file among the blobs and sets what a descriptor says of it.
add_blob() {
  digest=$(digest_of "$1")
  size=$(stat --format=%s "$1")
  mv "$1" "$work/oci/blobs/sha256/$digest"
}

build_image() {
  local layer diff layer_size config config_size
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  lay_out "$work/root"
  mkdir -p "$work/oci/blobs/sha256" dist

  pack "$work/root" --file="$work/layer.tar" epochwarden etc
  diff=$(digest_of "$work/layer.tar")
  gzip --no-name --best "$work/layer.tar"
  add_blob "$work/layer.tar.gz"
  layer=$digest layer_size=$size

  cat >"$work/config.json" <<CONFIG
{"created":"$created","architecture":"$architecture","os":"linux","config":{"User":"65532:65532","ExposedPorts":{"8080/tcp":{}},\
"Env":["PATH=/"],"Entrypoint":["/epochwarden"],"WorkingDir":"/","Labels":{$(labels)}},\
"rootfs":{"type":"layers","diff_ids":["sha256:$diff"]},"history":[{"created":"$created","created_by":"tools/image.sh"}]}
CONFIG
  add_blob "$work/config.json"
  config=$digest config_size=$size

  cat >"$work/manifest.json" <<MANIFEST
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",\
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},\
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}],\
"annotations":{$(labels)}}
MANIFEST
  add_blob "$work/manifest.json"

  printf '{"imageLayoutVersion":"1.0.0"}\n' >"$work/oci/oci-layout"
  # Engines read the name from the one annotation or the other.
  cat >"$work/oci/index.json" <<INDEX
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[\
{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$digest","size":$size,\
"platform":{"architecture":"$architecture","os":"linux"},\
"annotations":{"io.containerd.image.name":"$reference","org.opencontainers.image.ref.name":"$reference"}}]}
INDEX
  # The index comes first, so that who reads along knows what follows.
  pack "$work/oci" --file="$work/image.tar" oci-layout index.json blobs
  size=$(stat --format=%s "$work/image.tar")
  [[ $size -lt $limit ]] || fail "The image has $size bytes, and should have less than $limit."
  mv "$work/image.tar" "$archive"
  printf '%s: %s sha256:%s, %s bytes\n' "$archive" "$reference" "$digest" "$size"
}

# The labels, which are the manifest's annotations as well.
labels() {
  local label=org.opencontainers.image
  printf '"%s.%s":"%s",' $label title epochwarden $label version "$version" $label revision "$revision" $label created "$created" \
    $label licenses "$(sed -n 's/^license = "\(.*\)"/\1/p' Cargo.toml | head -n 1)"
  printf '"%s.description":"%s"' $label "$(sed -n 's/^description = "\(.*\)"/\1/p' Cargo.toml | tail -n 1)"
}

# What is not ignored, as it is now, in another folder that is longer and elsewhere.
check() {
  local one other
  build_image
  one=$(digest_of "$archive")
  # Not a local variable: it is read when the script ends.
  elsewhere=$(mktemp -d)/built-once-more
  trap 'rm -rf "$work" "$(dirname "$elsewhere")"' EXIT
  mkdir "$elsewhere"
  git ls-files --cached --others --exclude-standard -z | tar --create --null --files-from=- | tar --extract --directory="$elsewhere"
  REVISION=$revision CARGO_TARGET_DIR=$elsewhere/target "$elsewhere/tools/image.sh"
  other=$(digest_of "$elsewhere/$archive")
  [[ $one == "$other" ]] || fail "Two builds of the same sources differ: sha256:$one and sha256:$other."
  printf 'Two builds in two folders gave the same archive: sha256:%s\n' "$one"
}

case ${1-} in
  '') build_image ;;
  --files) lay_out "${2:?name a folder}" ;;
  --check) check ;;
  *) fail "There is no $1: see the first lines of ${BASH_SOURCE[0]}." ;;
esac

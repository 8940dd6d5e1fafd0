#!/usr/bin/env bash
# Builds the pinned third-party servers that tests and the demo run against, each once, into the user's cache directory.
#
#   tools/build.sh [-p N]         build what is missing, then print the folder that holds all tools
#   tools/build.sh --dir          print that folder, building nothing; fails when a tool is not there yet
#   tools/build.sh --print NAME   print the path of one tool, building nothing; fails when it is not there yet
#
# -p is go's own: how many programs it runs at once. GOFLAGS, GOPROXY and the like are go's too and are passed on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/epochwarden/tools
modules=(kubernetes etcd versitygw)

# What belongs to a module: the binaries it gives, from which packages, with which linker flags, and roughly how long it takes.
# Everything here but the time is part of the module's hash, so that changing one module never rebuilds another.
recipe() {
  local version
  case $1 in
    kubernetes)
      # Clients refuse an API server that does not know its own version.
      version=$(version_of k8s.io/kubernetes "$1")
      binaries=(kube-apiserver kubectl)
      packages=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl)
      linker="-s -w"
      local package major minor
      IFS=. read -r major minor _ <<<"${version#v}"
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        linker+=" -X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
      done
      lasts="4 minutes"
      ;;
    etcd)
      binaries=(etcd)
      packages=(go.etcd.io/etcd/server/v3)
      linker="-s -w"
      lasts="half a minute"
      ;;
    versitygw)
      version=$(version_of github.com/versity/versitygw "$1")
      binaries=(versitygw)
      packages=(github.com/versity/versitygw/cmd/versitygw)
      linker="-s -w -X main.Version=$version"
      lasts="a minute"
      ;;
  esac
}

version_of() {
  awk -v path="$1" '$1 == "require" && $2 == path { print $3; exit } $1 == path && $2 != "=>" { print $2; exit }' "$here/$2/go.mod"
}

hash_of() { openssl dgst -sha256 -r | cut -c1-16; }

folder_of() {
  recipe "$1"
  local hash
  hash=$({ cat "$here/$1/go.mod" "$here/$1/go.sum"; uname -sm; printf '%s\n' "${binaries[@]}" "${packages[@]}" "$linker"; } | hash_of)
  printf '%s\n' "$cache/$1-$hash"
}

# One folder with a link to every tool, named by what it links to.
links_folder() {
  local module hash
  hash=$(for module in "${modules[@]}"; do folder_of "$module"; done | sed 's|.*/||' | hash_of)
  printf '%s\n' "$cache/bin-$hash"
}

built() {
  local binary
  for binary in "${binaries[@]}"; do
    [[ -x $1/bin/$binary ]] || return 1
  done
}

say() { printf '%s\n' "$*" >&2; }

# A dropped connection while fetching is worth another try; a compiler error is not, so the two steps are apart.
fetch() {
  local attempt
  for attempt in 1 2 3; do
    go list -mod=readonly -deps "${packages[@]}" >/dev/null && return 0
    say "Fetching the sources failed (attempt $attempt of 3)."
    sleep $((attempt * 5))
  done
  return 1
}

build_module() {
  local module=$1 folder work index started=$SECONDS
  recipe "$module"
  folder=$(folder_of "$module")
  built "$folder" && return 0
  say "Building ${binaries[*]} (about $lasts the first time, on 2 cores) ..."
  work=$(mktemp -d "$cache/.$module.XXXXXX")
  # The folder appears whole or not at all: a build that is cut short leaves only a dot-folder that the next one removes.
  (
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    cd "$here/$module"
    export GOWORK=off CGO_ENABLED=0
    fetch
    mkdir "$work/bin"
    for index in "${!packages[@]}"; do
      go build -mod=readonly -trimpath -buildvcs=false ${parallel[@]+"${parallel[@]}"} -ldflags "$linker" \
        -o "$work/bin/${binaries[index]}" "${packages[index]}"
    done
    chmod 755 "$work"
    rm -rf "$folder"
    mv "$work" "$folder"
  )
  say "Built ${binaries[*]} in $((SECONDS - started)) s."
}

link_all() {
  local links=$1 module folder binary work
  [[ -d $links ]] && return 0
  work=$(mktemp -d "$cache/.bin.XXXXXX")
  for module in "${modules[@]}"; do
    recipe "$module"
    folder=$(folder_of "$module")
    for binary in "${binaries[@]}"; do
      ln -s "../${folder##*/}/bin/$binary" "$work/$binary"
    done
  done
  chmod 755 "$work"
  mv "$work" "$links"
}

complete() {
  local module
  [[ -d $1 ]] || return 1
  for module in "${modules[@]}"; do
    recipe "$module"
    built "$(folder_of "$module")" || return 1
  done
}

build_all() {
  local module links
  links=$(links_folder)
  if ! complete "$links"; then
    mkdir -p "$cache"
    # Of two builds at once the second waits for the first and finds everything there. Where flock is missing both build: the
    # renames keep that safe, and it costs time only.
    exec 9>"$cache/.lock"
    if command -v flock >/dev/null && ! flock -n 9; then
      say "Another build of the tools is running: waiting for it."
      flock 9
    fi
    if command -v flock >/dev/null; then
      find "$cache" -mindepth 1 -maxdepth 1 -type d -name '.*' -exec rm -rf {} +
    fi
    for module in "${modules[@]}"; do
      build_module "$module" 9>&-
    done
    link_all "$links"
    exec 9>&-
  fi
  printf '%s\n' "$links"
}

print_existing() {
  local links=$1
  if ! complete "$links"; then
    say "The test servers are not built yet: run 'make tools'."
    return 1
  fi
  printf '%s\n' "$links${2:+/$2}"
}

parallel=()
case ${1-} in
  "") build_all ;;
  -p)
    parallel=(-p "${2:?-p needs a number}")
    build_all
    ;;
  --dir) print_existing "$(links_folder)" ;;
  --print)
    path=$(print_existing "$(links_folder)" "${2:?--print needs the name of a tool}")
    if [[ ! -x $path ]]; then
      say "There is no tool named '$2'."
      exit 1
    fi
    printf '%s\n' "$path"
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# Builds the pinned third-party servers that tests and the demo run against, each once, into the user's cache directory.
#
#   tools/build.sh [-p N]         build what is missing, then print the folder that holds all tools
#   tools/build.sh --dir          print that folder, building nothing; fails when a tool is not there yet
#   tools/build.sh --print NAME   print the path of one tool, building nothing; fails when it is not there yet
#   tools/build.sh --extra NAME   build one that the demo does not need: minio and azurite for `make conformance`; helm, kubeconform and
#                                 promtool for the tests of the chart
#   tools/build.sh --node         build what runs pods, for `make e2e` on Linux: kubelet, containerd, runc, cni
#
# -p is go's own: how many programs it runs at once. GOFLAGS, GOPROXY and the like are go's too and are passed on.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/epochwarden/tools
modules=(kubernetes etcd versitygw)
extras=(minio azurite helm kubeconform promtool)
node=(kubelet containerd runc cni)

# What belongs to a module: the binaries it gives, from which packages, with which linker flags, and roughly how long it takes.
# Everything here but the time is part of the module's hash, so that changing one module never rebuilds another.
recipe() {
  local version
  tags= cgo=0
  case $1 in
    kubernetes)
      binaries=(kube-apiserver kubectl)
      packages=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl)
      linker=$(kubernetes_linker "$1")
      lasts="4 minutes"
      ;;
    kubelet)
      binaries=(kubelet kube-controller-manager kube-scheduler)
      packages=("${binaries[@]/#/k8s.io/kubernetes/cmd/}")
      linker=$(kubernetes_linker "$1")
      lasts="3 minutes"
      ;;
    containerd)
      binaries=(containerd containerd-shim-runc-v2 ctr)
      packages=("${binaries[@]/#/github.com/containerd/containerd/v2/cmd/}")
      version=$(version_of github.com/containerd/containerd/v2 "$1")
      linker="-s -w -X github.com/containerd/containerd/v2/version.Version=$version"
      # Snapshots are made on the file system that is there, with no library of another one.
      tags=no_btrfs,no_devmapper,no_zfs
      lasts="a minute"
      ;;
    runc)
      binaries=(runc)
      packages=(github.com/opencontainers/runc)
      version=$(version_of github.com/opencontainers/runc "$1")
      linker="-s -w -X main.version=${version#v}"
      # What enters a container's namespaces is C, and a pod's restricted profile asks for a filter of system calls.
      tags=seccomp
      cgo=1
      lasts="15 seconds"
      ;;
    cni)
      binaries=(bridge loopback host-local)
      packages=(main/bridge main/loopback ipam/host-local)
      packages=("${packages[@]/#/github.com/containernetworking/plugins/plugins/}")
      linker="-s -w"
      lasts="10 seconds"
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
    minio)
      binaries=(minio)
      packages=(github.com/minio/minio)
      linker="-s -w"
      lasts="3 minutes"
      ;;
    helm)
      # The API that `helm template` assumes it takes from the version of client-go that it was built with.
      version=$(version_of helm.sh/helm/v4 "$1")
      binaries=(helm)
      packages=(helm.sh/helm/v4/cmd/helm)
      linker="-s -w -X helm.sh/helm/v4/internal/version.version=$version"
      lasts="2 minutes"
      ;;
    kubeconform)
      version=$(version_of github.com/yannh/kubeconform "$1")
      binaries=(kubeconform)
      packages=(github.com/yannh/kubeconform/cmd/kubeconform)
      linker="-s -w -X main.version=$version"
      lasts="5 seconds"
      ;;
    promtool)
      binaries=(promtool)
      packages=(github.com/prometheus/prometheus/cmd/promtool)
      linker="-s -w"
      lasts="3 minutes"
      ;;
    azurite)
      # Not compiled: a package of Node.js, from a lock file that names every other by its digest.
      binaries=(azurite-blob)
      packages=(azurite)
      linker=
      lasts="half a minute"
      ;;
  esac
}

# Clients refuse a server of Kubernetes that does not know its own version.
kubernetes_linker() {
  local version package major minor
  version=$(version_of k8s.io/kubernetes "$1")
  IFS=. read -r major minor _ <<<"${version#v}"
  printf '%s' "-s -w"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    printf ' %s' "-X $package.gitVersion=$version -X $package.gitMajor=$major -X $package.gitMinor=$minor"
  done
}

# The two files that pin what a module is made of.
pins_of() {
  case $1 in
    azurite) printf '%s\n' "$here/$1/package.json" "$here/$1/package-lock.json" ;;
    *) printf '%s\n' "$here/$1/go.mod" "$here/$1/go.sum" ;;
  esac
}

version_of() {
  awk -v path="$1" '$1 == "require" && $2 == path { print $3; exit } $1 == path && $2 != "=>" { print $2; exit }' "$here/$2/go.mod"
}

hash_of() { openssl dgst -sha256 -r | cut -c1-16; }

folder_of() {
  recipe "$1"
  local hash pins
  mapfile -t pins < <(pins_of "$1")
  hash=$({ cat "${pins[@]}"; uname -sm; printf '%s\n' "${binaries[@]}" "${packages[@]}" "$linker" ${tags:+"$tags"}; } | hash_of)
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
    go list -mod=readonly -tags "$tags" -deps "${packages[@]}" >/dev/null && return 0
    say "Fetching the sources failed (attempt $attempt of 3)."
    sleep $((attempt * 5))
  done
  return 1
}

compile() {
  local index
  export GOWORK=off CGO_ENABLED=$cgo
  fetch
  for index in "${!packages[@]}"; do
    go build -mod=readonly -tags "$tags" -trimpath -buildvcs=false ${parallel[@]+"${parallel[@]}"} -ldflags "$linker" \
      -o "$work/bin/${binaries[index]}" "${packages[index]}"
  done
}

# No script of a package is run.
install_packages() {
  local attempt binary
  cp package.json package-lock.json "$work"
  for attempt in 1 2 3; do
    npm ci --prefix "$work" --ignore-scripts --omit=dev --no-audit --no-fund --no-update-notifier --loglevel=error >&2 && break
    say "Fetching the packages failed (attempt $attempt of 3)."
    [[ $attempt -lt 3 ]] || return 1
    sleep $((attempt * 5))
  done
  for binary in "${binaries[@]}"; do
    ln -s "../node_modules/.bin/$binary" "$work/bin/$binary"
  done
}

build_module() {
  local module=$1 folder work started=$SECONDS
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
    mkdir "$work/bin"
    if [[ -f package-lock.json ]]; then
      install_packages
    else
      compile
    fi
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

# Of two builds at once the second waits for the first and finds everything there. Where flock is missing both build: the renames keep
# that safe, and it costs time only.
lock() {
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  if command -v flock >/dev/null && ! flock -n 9; then
    say "Another build of the tools is running: waiting for it."
    flock 9
  fi
  if command -v flock >/dev/null; then
    find "$cache" -mindepth 1 -maxdepth 1 -type d -name '.*' -exec rm -rf {} +
  fi
}

build_all() {
  local module links
  links=$(links_folder)
  if ! complete "$links"; then
    lock
    for module in "${modules[@]}"; do
      build_module "$module" 9>&-
    done
    link_all "$links"
    exec 9>&-
  fi
  printf '%s\n' "$links"
}

# The one of the extra tools that has this name, or is the module of the tool of this name; nothing when there is none.
extra_of() {
  local module binary
  for module in "${extras[@]}" "${node[@]}"; do
    recipe "$module"
    for binary in "$module" "${binaries[@]}"; do
      [[ $binary == "$1" ]] && printf '%s\n' "$module" && return 0
    done
  done
  return 0
}

build_extra() {
  local module
  module=$(extra_of "$1")
  if [[ -z $module ]]; then
    say "There is no such tool as '$1'."
    return 1
  fi
  recipe "$module"
  built "$(folder_of "$module")" && return 0
  if [[ $module == azurite ]] && ! command -v npm >/dev/null; then
    say "Azurite needs Node.js with npm."
    return 1
  fi
  if [[ $module == runc ]] && ! has_seccomp; then
    # A machine of CI is nobody's: there what is missing is installed.
    if [[ -n ${CI-} && $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
      apt-get update >&2 || true
      apt-get install -y libseccomp-dev >&2 || true
    fi
    if ! has_seccomp; then
      say "runc needs the headers of libseccomp: on Debian, apt-get install libseccomp-dev."
      return 1
    fi
  fi
  lock
  build_module "$module" 9>&-
  exec 9>&-
}

has_seccomp() { echo '#include <seccomp.h>' | "${CC:-cc}" -E - >/dev/null 2>&1; }

build_node() {
  local module
  if [[ $(uname -s) != Linux ]]; then
    say "Pods run on Linux only."
    return 1
  fi
  for module in "${node[@]}"; do
    build_extra "$module"
  done
}

# The tool that has this name, or the first of the module that has it.
print_extra() {
  local module=$1 name=$2 folder
  recipe "$module"
  folder=$(folder_of "$module")
  if ! built "$folder"; then
    say "There is no $module yet: run 'tools/build.sh --extra $module'."
    return 1
  fi
  if [[ $name != "$module" ]]; then
    printf '%s\n' "$folder/bin/$name"
    return
  fi
  printf '%s\n' "$folder/bin/${binaries[0]}"
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
  --node) build_node ;;
  --extra) build_extra "${2:?--extra needs the name of a tool}" ;;
  --print)
    extra=$(extra_of "${2:?--print needs the name of a tool}")
    if [[ -n $extra ]]; then
      print_extra "$extra" "$2"
      exit
    fi
    path=$(print_existing "$(links_folder)" "$2")
    if [[ ! -x $path ]]; then
      say "There is no tool named '$2'."
      exit 1
    fi
    printf '%s\n' "$path"
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

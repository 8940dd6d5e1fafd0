#!/usr/bin/env bash
# Names everything that is missing to build and test, each with the command that installs it, and fails if anything is.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rust=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$here/../rust-toolchain.toml")
go=1.26
missing=0

miss() {
  [[ $missing -gt 0 ]] || printf 'Some things are missing here:\n\n' >&2
  missing=$((missing + 1))
  printf '  %s\n      %s\n' "$1" "$2" >&2
}

# How this system installs a package; the arguments are its name for apt, dnf, pacman, apk and brew.
install_command() {
  if command -v apt-get >/dev/null; then echo "sudo apt-get install -y $1"
  elif command -v dnf >/dev/null; then echo "sudo dnf install -y $2"
  elif command -v pacman >/dev/null; then echo "sudo pacman -S --needed $3"
  elif command -v apk >/dev/null; then echo "sudo apk add $4"
  elif command -v brew >/dev/null; then echo "brew install $5"
  else echo "install the package $1 with this system's package manager"
  fi
}

# Whether version $1 is at least version $2.
at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

go_install() {
  local system machine
  system=$(uname -s | tr '[:upper:]' '[:lower:]')
  case $(uname -m) in
    x86_64) machine=amd64 ;;
    aarch64 | arm64) machine=arm64 ;;
    *) machine=$(uname -m) ;;
  esac
  echo "curl -fsSL https://go.dev/dl/go$go.0.$system-$machine.tar.gz | sudo tar -C /usr/local -xz && export PATH=\$PATH:/usr/local/go/bin"
}

rustup_install="curl -fsSL https://sh.rustup.rs | sh -s -- -y --default-toolchain $rust --component rustfmt --component clippy"

cd "$here/.."
if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
  miss "Rust $rust (cargo, rustc)" "$rustup_install"
elif ! version=$(rustc --version 2>/dev/null); then
  miss "Rust $rust (rustup is here, this toolchain is not)" "rustup toolchain install $rust --component rustfmt --component clippy"
else
  version=${version#rustc }
  version=${version%% *}
  if ! at_least "$version" "$rust"; then
    miss "Rust $rust (found $version)" "$rustup_install"
  elif ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    miss "rustfmt and clippy for Rust $rust" "rustup component add --toolchain $rust rustfmt clippy"
  fi
fi

if ! command -v go >/dev/null; then
  miss "Go $go or newer (builds the servers that tests and the demo run against)" "$(go_install)"
else
  version=$(cd / && go env GOVERSION)
  version=${version#go}
  at_least "${version%% *}" "$go" || miss "Go $go or newer (found $version)" "$(go_install)"
fi

command -v "${CC:-cc}" >/dev/null ||
  miss "a C compiler (${CC:-cc})" "$(install_command build-essential gcc base-devel build-base gcc)"

command -v openssl >/dev/null ||
  miss "openssl (makes the API server's signing key)" "$(install_command openssl openssl openssl openssl openssl)"

if [[ $missing -gt 0 ]]; then
  printf '\nInstall what is named above and run make again; nothing was built.\n' >&2
  exit 1
fi

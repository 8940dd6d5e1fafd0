#!/usr/bin/env bash
# Prints the folder that Cargo builds into, whether the environment, a configuration file or nobody chose it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo metadata --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'

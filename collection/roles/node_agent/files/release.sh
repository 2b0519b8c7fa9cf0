# shellcheck shell=sh
# Unpacks a release that comes on stdin in base64. Argument: its directory.
directory=$1
set -eu
umask 022
mkdir -p "$directory"
base64 -d | tar -xzf - -C "$directory" --no-same-owner

# shellcheck shell=sh
# Makes a key with a self-signed certificate, whole or not at all. Arguments: directory, days that it is valid, name.
# Prints the certificate.
directory=$1 days=$2 name=$3
set -eu
umask 077
LC_ALL=C
export LC_ALL

rm -rf "$directory" "$directory.new"
mkdir "$directory.new"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 -days "$days" -subj "/CN=$name" \
    -keyout "$directory.new/key.pem" -out "$directory.new/certificate.pem" </dev/null >/dev/null 2>&1
mv "$directory.new" "$directory"
cat "$directory/certificate.pem"

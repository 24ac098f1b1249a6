#!/bin/sh
# Remakes raysweep/report/assets/vendor from the npm package that its VERSION names, and checks package and files by their hashes.
set -eu
cd "$(dirname "$0")/../raysweep/report/assets/vendor"
read -r name version hash < VERSION
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "$name@$version" > /dev/null
echo "$hash  $work/$name-$version.tgz" | sha256sum --check --quiet
tar -xzf "$work/$name-$version.tgz" -C "$work"
cp "$work/package/dist/uPlot.iife.min.js" "$work/package/dist/uPlot.min.css" "$work/package/LICENSE" .
tail -n +2 VERSION | sha256sum --check --quiet

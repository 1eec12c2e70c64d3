#!/bin/sh
# Post-renderer of Helm: runs `contrast generate` on what the chart rendered, so that its pods get their policies. Arguments are those of
# `generate`: options, and files or directories of applications, which become part of the release. manifest.json is in the directory in
# which helm runs.
set -eu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/chart.yaml"
contrast generate "$@" --output - "$scratch/chart.yaml"

#!/bin/sh
# Makes statistics.wasm.
set -eu
cd "$(dirname "$0")"
WIT=${WIT:-../../wit}

[ -x .venv/bin/pip ] || python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
.venv/bin/componentize-py --quiet --wit-path "$WIT" --world http-function \
    componentize app --output statistics.wasm

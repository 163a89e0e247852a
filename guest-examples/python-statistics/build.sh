#!/bin/sh
# Makes statistics.wasm.
set -eu
cd "$(dirname "$0")"
WIT=${WIT:-../../wit}

[ -x .venv/bin/pip ] || python3 -m venv .venv
.venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
# CPython imports `wasi:sockets`, which is not granted: without WASI it loads.
.venv/bin/componentize-py --quiet --wit-path "$WIT" --world http-function \
    componentize --stub-wasi app --output statistics.wasm

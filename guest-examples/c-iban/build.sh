#!/bin/sh
# Makes iban.wasm. `SYSROOT` and `PATH` may name tools that lie elsewhere than Debian puts them.
set -eu
cd "$(dirname "$0")"
WIT=${WIT:-../../wit}
SYSROOT=${SYSROOT:-/usr}
# Debian's name for the folder with clang and its linker, wasm-ld.
PATH=$SYSROOT/lib/llvm-19/bin:$PATH
# Calls wasm-ld, and makes a component of what comes out. It is part of the target wasm32-wasip2.
LINKER=$(rustc --print sysroot)/lib/rustlib/$(rustc --print host-tuple)/bin/wasm-component-ld

wit-bindgen c "$WIT" --world http-function --async=-all --out-dir gen
clang --target=wasm32-wasi --sysroot="$SYSROOT" -mexec-model=reactor -fuse-ld="$LINKER" \
    -Wl,-z,stack-size=65536 -Wl,--strip-debug -Os -Wall -Wextra -Igen -o iban.wasm \
    iban.c gen/http_function.c gen/http_function_component_type.o

//! Components by hand, for what no compiler makes.

use std::path::PathBuf;

use dunlin_tests::wat_component;

/// What a module here needs: it exports `memory`, `realloc` and `handle`.
pub(crate) const MEMORY: &str = r#"(memory (export "memory") 1)"#;

/// Memory for what the host brings: from 4 KiB up, never given back.
pub(crate) const REALLOC: &str = r#"
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
        (local $at i32)
        (local.set $at
            (i32.and
                (i32.add (global.get $next) (i32.sub (local.get 2) (i32.const 1)))
                (i32.sub (i32.const 0) (local.get 2))))
        (global.set $next (i32.add (local.get $at) (local.get 3)))
        (local.get $at))"#;

/// A handler that does this, and then answers 200 with the four bytes at
/// address 64.
pub(crate) fn handler(body: &str) -> String {
    format!(
        r#"
    (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (local $n i32)
        (local $m i32)
        {body}
        (i32.store16 (i32.const 16) (i32.const 200))
        (i32.store (i32.const 20) (i32.const 0))
        (i32.store (i32.const 24) (i32.const 0))
        (i32.store (i32.const 28) (i32.const 64))
        (i32.store (i32.const 32) (i32.const 4))
        (i32.const 16))"#
    )
}

/// A component that handles HTTP by this module.
#[track_caller]
pub(crate) fn http_component(module: &str) -> PathBuf {
    wat_component(&format!(
        r#"(component
  (core module $module {module})
  (core instance $core (instantiate $module))
  {}
)"#,
        lift("$core")
    ))
}

/// The exports of a component that handles HTTP by a core instance.
pub(crate) fn lift(core: &str) -> String {
    const TYPES: &str = r#"
    (type $header (tuple string (list u8)))
    (type $request-record (record
        (field "method" string)
        (field "path-with-query" string)
        (field "headers" (list $header))
        (field "body" (list u8))))
    (type $response-record (record
        (field "status" u16)
        (field "headers" (list $header))
        (field "body" (list u8))))"#;
    format!(
        r#"
  {TYPES}
  (alias core export {core} "memory" (core memory $memory))
  (alias core export {core} "realloc" (core func $realloc))
  (alias core export {core} "handle" (core func $handle))
  (func $lifted (param "request" $request-record) (result $response-record)
      (canon lift (core func $handle) (memory $memory) (realloc $realloc)))
  (component $names
    {TYPES}
    (import "request" (type $request (eq $request-record)))
    (import "response" (type $response (eq $response-record)))
    (import "handle" (func $handle (param "request" $request) (result $response)))
    (export $request-named "request" (type $request))
    (export $response-named "response" (type $response))
    (export "handle" (func $handle)
        (func (param "request" $request-named) (result $response-named))))
  (instance $http (instantiate $names
      (with "request" (type $request-record))
      (with "response" (type $response-record))
      (with "handle" (func $lifted))))
  (export "dunlin:event/http@0.1.0" (instance $http))"#
    )
}

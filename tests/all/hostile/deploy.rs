//! Components that do their harm when they are instantiated: refused before
//! anything listens.

use std::path::Path;

use dunlin_tests::{Failure, Host, guest, wat_component};

use crate::wat::{MEMORY, REALLOC, handler, http_component, lift};

#[track_caller]
fn refused(component: &Path, keys: &str) -> Failure {
    let failure = Host::builder()
        .function("bad", component, keys)
        .start_expecting_failure();
    assert_ne!(failure.code, 0, "{failure:?}");
    let file = component
        .file_name()
        .expect("a file")
        .to_str()
        .expect("of ours");
    for part in ["dunlin.toml", "function.bad", file] {
        assert!(
            failure.stderr.contains(part),
            "`{part}` is not in {}",
            failure.stderr
        );
    }
    failure
}

#[track_caller]
fn says(failure: &Failure, parts: &[&str]) {
    for part in parts {
        assert!(
            failure.stderr.contains(part),
            "`{part}` is not in {}",
            failure.stderr
        );
    }
}

/// A module with a start function.
fn starting(memory: &str, body: &str) -> std::path::PathBuf {
    http_component(&format!(
        "{memory} {REALLOC} (func $start {body}) (start $start) {}",
        handler("")
    ))
}

#[test]
fn a_component_that_cannot_be_deployed_is_a_mistake_in_the_manifest() {
    // As is one that is missing: the same exit code, and a line of the same form.
    let failure = refused(&starting(MEMORY, "unreachable"), "");
    assert_eq!(failure.code, 64, "{failure:?}");
    assert!(!failure.stderr.starts_with("error: "), "{failure:?}");
}

#[test]
fn a_start_function_that_loops_is_refused_within_its_time() {
    let begun = std::time::Instant::now();
    let failure = refused(&starting(MEMORY, "(loop (br 0))"), "timeout = \"15m\"");
    says(
        &failure,
        &["did not instantiate within 10 seconds", "start functions"],
    );
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn a_start_function_that_uses_up_its_fuel_is_refused() {
    let failure = refused(&starting(MEMORY, "(loop (br 0))"), "fuel = 1000000");
    says(&failure, &["does not instantiate", "fuel"]);
}

#[test]
fn a_start_function_that_traps_is_refused() {
    let failure = refused(&starting(MEMORY, "unreachable"), "");
    says(&failure, &["does not instantiate", "unreachable"]);
}

#[test]
fn a_component_that_begins_with_more_than_its_memory_is_refused() {
    let component = starting(r#"(memory (export "memory") 300)"#, "");
    let failure = refused(&component, "memory = \"16MiB\"");
    says(
        &failure,
        &[
            "more than its 16MiB of memory to begin with",
            "raise `memory`",
        ],
    );
}

#[test]
fn a_component_with_too_many_memories_is_refused() {
    let memories = format!("{MEMORY} {}", "(memory 0)".repeat(20));
    let failure = refused(&starting(&memories, ""), "");
    says(&failure, &["memories"]);
    // There is nothing wrong with the disk.
    assert!(!failure.stderr.contains("disk"), "{failure:?}");
}

#[test]
fn a_component_with_too_many_tables_is_refused() {
    let tables = format!("{MEMORY} {}", "(table 1 funcref)".repeat(17));
    let failure = refused(&starting(&tables, ""), "");
    says(&failure, &["tables count of 17", "limit of 16"]);
}

/// A handler, and so many core instances beside its own.
fn with_instances(more: usize) -> std::path::PathBuf {
    let instances = "(core instance (instantiate $empty))".repeat(more);
    wat_component(&format!(
        r#"(component
  (core module $empty)
  {instances}
  (core module $module {MEMORY} {REALLOC} {})
  (core instance $core (instantiate $module))
  {}
)"#,
        handler(""),
        lift("$core")
    ))
}

#[test]
fn a_component_has_64_core_instances_at_most() {
    // Python's has about forty.
    let host = Host::builder()
        .function("many", &with_instances(63), "")
        .start();
    assert_eq!(host.get("/many").status, 200);
    host.stop();
    let failure = refused(&with_instances(64), "");
    says(&failure, &["65 core module instances", "maximum of 64"]);
}

#[test]
fn a_component_with_a_table_larger_than_its_memory_is_refused() {
    let memory = format!("{MEMORY} (table 100000000 funcref)");
    let failure = refused(&starting(&memory, ""), "memory = \"16MiB\"");
    says(&failure, &["table"]);
    assert!(!failure.stderr.contains("disk"), "{failure:?}");
}

#[test]
fn all_that_is_wrong_with_all_components_is_said_at_once() {
    let whole = std::fs::read(guest("hostile")).expect("it was built");
    let module = wat_module();
    let failure = Host::builder()
        .file("half.wasm", &whole[..whole.len() / 2])
        .file("module.wasm", module)
        .manifest("[function.half]\ncomponent = \"half.wasm\"")
        .manifest("[function.none]\ncomponent = \"none.wasm\"")
        .manifest("[function.module]\ncomponent = \"module.wasm\"")
        .manifest("[function.keyed]\ncomponent = \"none.wasm\"\nmemroy = \"1MiB\"")
        .function("silent", &wat_component("(component)"), "")
        .function("greedy", &importing("acme:private/door"), "")
        .start_expecting_failure();
    assert_eq!(failure.code, 64, "{failure:?}");
    // All of it in one go, each with its key.
    for (function, what) in [
        ("half", "cut short"),
        ("none", "no such file"),
        ("module", "core WebAssembly module"),
        ("keyed", "no such file"),
        ("silent", "exports no handler"),
        ("silent", "dunlin:event/http@0.1.0"),
        ("greedy", "`acme:private/door`, which nothing provides"),
    ] {
        let key = format!("function.{function}.component: ");
        let says = |line: &str| line.contains(&key) && line.contains(what);
        assert!(failure.stderr.lines().any(says), "{key}{what}: {failure:?}");
    }
    says(
        &failure,
        &["function.keyed.memroy: ", "did you mean `memory`?"],
    );
}

#[test]
fn a_handler_that_cannot_be_called_is_refused() {
    for interface in ["dunlin:event/http", "dunlin:event/invoke"] {
        let empty =
            format!(r#"(component (instance $i) (export "{interface}@0.1.0" (instance $i)))"#);
        // A type of that name.
        let other = format!(
            r#"(component
                 (type $t (record (field "a" u8)))
                 (instance $i (export "handle" (type $t)))
                 (export "{interface}@0.1.0" (instance $i)))"#
        );
        for component in [empty, other] {
            let failure = refused(&wat_component(&component), "");
            says(
                &failure,
                &[
                    interface,
                    "it has no function `handle`",
                    "against the current wit/",
                ],
            );
        }
    }
}

/// The header of a core module is a whole core module.
fn wat_module() -> Vec<u8> {
    b"\0asm\x01\0\0\0".to_vec()
}

/// A component with an import that no function gets.
fn importing(name: &str) -> std::path::PathBuf {
    wat_component(&format!(
        r#"(component (import "{name}" (instance (export "f" (func)))))"#
    ))
}

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    for name in [
        "wasi:sockets/types@0.3.0",
        "wasi:filesystem/types@0.3.0",
        "dunlin:event/producer@0.2.0",
        "dunlin:event/context@0.2.0",
        "acme:private/door",
    ] {
        let failure = refused(&importing(name), "");
        says(
            &failure,
            &[name, "which nothing provides", "remove what needs it"],
        );
    }
}

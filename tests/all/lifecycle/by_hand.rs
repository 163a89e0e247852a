//! Components that no compiler of ours makes: what is kept of any, and what Wizer does
//! not take.

use std::path::PathBuf;
use std::process::Command;

use dunlin_tests::{Host, dunlin, eventually, wat_component};

use super::NOTE;
use crate::wat::{MEMORY, REALLOC, handler, lift};

/// A component that handles HTTP, and prepares itself by the function `init` of this
/// module, which answers 1 at address 128 if it failed. `before` is what stands before
/// the module, and `with` what it is instantiated with.
fn component(before: &str, with: &str, module: &str) -> PathBuf {
    wat_component(&format!(
        r#"(component
  {before}
  (core module $module {module})
  (core instance $core (instantiate $module {with}))
  {lifted}
  (alias core export $core "init" (core func $init))
  (type $outcome (result (error string)))
  (func $prepare (result $outcome)
      (canon lift (core func $init) (memory $memory) (realloc $realloc)))
  (component $initialise
    (type $outcome (result (error string)))
    (import "init" (func $init (result $outcome)))
    (export "init" (func $init)))
  (instance $initialised (instantiate $initialise (with "init" (func $prepare))))
  (export "dunlin:event/initialise@0.1.0" (instance $initialised))
)"#,
        lifted = lift("$core")
    ))
}

/// A module whose `init` does this, counting its runs in a global and in memory, and
/// whose handler answers both: two digits, and two more.
fn module(memory: &str, more: &str, init: &str) -> String {
    let count = handler(
        "(i32.store8 (i32.const 64) (i32.add (i32.const 48) (global.get $runs)))
         (i32.store8 (i32.const 65) (i32.load8_u (i32.const 200)))
         (i32.store16 (i32.const 66) (i32.const 0x2e2e))",
    );
    format!(
        r#"{more} {memory} {REALLOC}
        (global $runs (mut i32) (i32.const 0))
        (func (export "init") (result i32)
            (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
            (i32.store8 (i32.const 200)
                (i32.add (i32.const 48) (global.get $runs)))
            {init}
            (i32.store (i32.const 128) (i32.const 0))
            (i32.const 128))
        {count}"#
    )
}

#[track_caller]
fn serves(component: &std::path::Path) -> Host {
    let host = Host::builder().function("by-hand", component, "").start();
    for _ in 0..3 {
        let response = host.get("/by-hand");
        assert_eq!((response.status, response.text().as_str()), (200, "11.."));
    }
    host
}

#[track_caller]
fn runs_in_each_instance(component: &std::path::Path, why: &str) {
    let host = serves(component);
    let note = eventually("a note on stderr", || {
        host.stderr().into_iter().find(|line| line.contains(NOTE))
    });
    assert!(note.contains(why), "{note}");
    host.stop();
}

#[test]
fn globals_and_memory_of_a_component_by_hand_are_kept() {
    let host = serves(&component("", "", &module(MEMORY, "", "")));
    let noted = host.stderr().iter().any(|line| line.contains(NOTE));
    assert!(!noted, "{:?}", host.stderr());
    host.stop();
}

#[test]
fn memory_that_init_took_is_there_in_each_instance() {
    // Four pages more, and a mark in the last.
    let grown = module(
        MEMORY,
        "",
        "(drop (memory.grow (i32.const 4)))
         (i32.store8 (i32.const 327679) (i32.const 42))",
    );
    let grown = grown.replace(
        "(i32.store16 (i32.const 66) (i32.const 0x2e2e))",
        "(if (i32.ne (memory.size) (i32.const 5)) (then unreachable))
         (if (i32.ne (i32.load8_u (i32.const 327679)) (i32.const 42)) (then unreachable))
         (i32.store16 (i32.const 66) (i32.const 0x2e2e))",
    );
    let host = serves(&component("", "", &grown));
    assert!(!host.stderr().iter().any(|line| line.contains(NOTE)));
    host.stop();
}

#[test]
fn a_table_that_may_change_is_not_kept() {
    let table = "(table $table 2 funcref)";
    let change = "(table.set $table (i32.const 0) (ref.null func))";
    let component = component("", "", &module(MEMORY, table, change));
    let why = "Wizer does not take the component: unsupported `table.set` instruction";
    runs_in_each_instance(&component, why);

    // That is seen without running anything.
    let folder = tempfile::tempdir().unwrap();
    let path = component.display().to_string();
    let manifest = format!("[function.by-hand]\ncomponent = {path:?}\n");
    std::fs::write(folder.path().join("dunlin.toml"), manifest).unwrap();
    let output = Command::new(dunlin())
        .arg("check")
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.contains("note: function.by-hand: ") && said.contains(why),
        "{said}"
    );
    assert!(said.ends_with("ok: 1 function, 0 routes\n"), "{said}");
}

#[test]
fn a_memory_that_cannot_grow_is_not_read_and_so_not_kept() {
    let fixed = r#"(memory (export "memory") 1 1)"#;
    let component = component("", "", &module(fixed, "", ""));
    runs_in_each_instance(&component, "its memory cannot grow by the page");
}

#[test]
fn a_handle_of_its_own_is_not_kept() {
    let before = r#"
        (type $thing (resource (rep i32)))
        (core func $new (canon resource.new $thing))
        (core instance $own (export "new" (func $new)))"#;
    let with = r#"(with "own" (instance $own))"#;
    let import = r#"(import "own" "new" (func $new (param i32) (result i32)))"#;
    let made = module(MEMORY, import, "(drop (call $new (i32.const 7)))");
    runs_in_each_instance(&component(before, with, &made), "it made a handle");
}

#[test]
fn an_interface_of_another_type_is_refused() {
    let module = format!("{MEMORY} {REALLOC} {}", handler(""));
    for (interface, function) in [("initialise", "init"), ("retire", "shutdown")] {
        let component = wat_component(&format!(
            r#"(component
  (core module $module {module})
  (core instance $core (instantiate $module))
  {}
  (instance $empty)
  (export "dunlin:event/{interface}@0.1.0" (instance $empty))
)"#,
            lift("$core")
        ));
        let failure = Host::builder()
            .function("by-hand", &component, "")
            .start_expecting_failure();
        assert_eq!(failure.code, 64, "{failure:?}");
        for word in [
            format!("`dunlin:event/{interface}@0.1.0` is not that of the contract"),
            format!("it has no function `{function}`"),
        ] {
            assert!(failure.stderr.contains(&word), "`{word}`: {failure:?}");
        }
    }
}

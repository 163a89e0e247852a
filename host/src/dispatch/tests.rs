//! The host's own failures: no guest brings one about, so they are made here.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Handle;

use super::*;
use crate::function::{ComponentSource, FunctionSpec};
use crate::invocation::{NoOutbox, Trigger};
use crate::key_value::{self, Buckets};
use crate::runtime::{Compiler, MemoryReset, Runtime, RuntimeOptions, Share, inspect};
use crate::store::SystemClock;
use crate::telemetry::{Log, LogInvocations, Metrics};

/// A component that handles direct invocations: it answers nothing.
const COMPONENT: &str = r#"(component
  (core module $module
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
    (func (export "handle") (param i32 i32) (result i32) (i32.const 16)))
  (core instance $core (instantiate $module))
  (alias core export $core "memory" (core memory $memory))
  (alias core export $core "realloc" (core func $realloc))
  (alias core export $core "handle" (core func $handle))
  (type $error-record (record
    (field "error-type" string) (field "message" string) (field "stack-trace" (list string))))
  (func $lifted
    (param "payload" (list u8)) (result (result (list u8) (error $error-record)))
    (canon lift (core func $handle) (memory $memory) (realloc $realloc)))
  (component $names
    (type $error-record (record
      (field "error-type" string) (field "message" string) (field "stack-trace" (list string))))
    (import "function-error" (type $error (eq $error-record)))
    (import "handle" (func $handle
      (param "payload" (list u8)) (result (result (list u8) (error $error)))))
    (export $error-named "function-error" (type $error))
    (export "handle" (func $handle)
      (func (param "payload" (list u8)) (result (result (list u8) (error $error-named))))))
  (instance $invoke (instantiate $names
    (with "function-error" (type $error-record))
    (with "handle" (func $lifted))))
  (export "dunlin:event/invoke@0.1.0" (instance $invoke)))"#;

/// What is written stays to be read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Written {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap();
        let lines = std::str::from_utf8(&bytes).unwrap().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn spec(component: &std::path::Path) -> FunctionSpec {
    FunctionSpec {
        provisioned: Some(0),
        ..FunctionSpec::new(
            FunctionName::new("f").unwrap(),
            ComponentSource::File(component.to_owned()),
        )
    }
}

#[tokio::test]
async fn what_the_host_fails_at_is_recorded_as_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("f.wasm");
    std::fs::write(&component, wat::parse_str(COMPONENT).unwrap()).unwrap();
    let written = Written::default();
    let (log, writer) = Log::start(written.clone()).unwrap();
    let telemetry = Telemetry {
        log: log.clone(),
        metrics: Arc::new(Metrics::new().unwrap()),
        log_invocations: LogInvocations::Failures,
    };
    let path = folder.path().join(key_value::FILE_NAME);
    let clock = Arc::new(SystemClock::default());
    let (buckets, _) = Buckets::open(&path, clock, Handle::current()).unwrap();
    let options = RuntimeOptions {
        slots: 2,
        ready: 0,
        ready_per_function: 0,
        ready_memory: 0,
        mapped: 1,
        rest_after: Duration::from_secs(1),
        max_memory: 1 << 20,
        scratch_budget: 0,
        memory_reset: MemoryReset::Memset,
        memory_budget: 64 << 20,
        cores: 1,
        state: folder.path().to_owned(),
        compiler: Compiler::InProcess,
        blocking: tokio::runtime::Handle::current(),
        buckets: Arc::new(buckets),
        arn_prefix: "arn:aws:lambda:x:0:function:".to_owned(),
    };
    let nowhere = Arc::new(crate::egress::Shared::nowhere(log.clone()));
    let runtime = Runtime::start(options, telemetry.clone(), Arc::new(NoOutbox), nowhere).unwrap();
    let spec = spec(&component);
    let lane = Admission::new(1, Duration::ZERO, [&spec].into_iter()).lane(&spec.name);
    let share = Share::new(spec.weight, 1);
    let inspected = Arc::new(inspect(&component).unwrap());
    let version = runtime.load(spec, &inspected, "$LATEST", share).await;
    let function = Function {
        version: version.unwrap_or_else(|errors| panic!("{errors:?}")),
        lane,
    };
    let dispatcher = Dispatcher::new(telemetry.clone());
    let event = || Event::Payload(Bytes::from_static(b"{}"));

    // As the API does with an answer that is not of its kind.
    let cannot = |_| Err::<(), _>(Failure::host("nothing can be made of the answer"));
    let ended = dispatcher.invoke(&function, event(), Call::new(Trigger::Invoke), cannot);
    let failure = ended.await.result.unwrap_err();
    assert_eq!(failure.kind, OutcomeKind::HostError);
    assert_eq!(failure.error_type, "ServiceException");
    // And the next is served.
    let call = Call::new(Trigger::Invoke);
    let ended = dispatcher.invoke(&function, event(), call, Ok).await;
    assert!(ended.result.is_ok(), "{:?}", ended.result);

    let text = telemetry.metrics.render(&log, 0, 0).unwrap();
    let text = String::from_utf8(text).unwrap();
    for line in [
        r#"dunlin_invocations_total{function="f",outcome="host_error",trigger="invoke"} 1"#,
        r#"dunlin_invocations_total{function="f",outcome="ok",trigger="invoke"} 1"#,
        r#"dunlin_invocations_running{function="f"} 0"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    drop(writer);
    let records = written.lines();
    assert_eq!(records.len(), 1, "{records:?}");
    for (member, value) in [
        ("kind", "invocation"),
        ("level", "error"),
        ("function", "f"),
        ("outcome", "host_error"),
        ("error_type", "ServiceException"),
        ("message", "nothing can be made of the answer"),
    ] {
        assert_eq!(records[0][member], value, "{member} of {}", records[0]);
    }
}

#[tokio::test]
async fn an_invocation_whose_core_fails_is_the_hosts_error_and_one_whose_core_ends_is_cancelled() {
    let failed = tokio::spawn(async { panic!("a mistake of the host") });
    let failure = lost(&failed.await.expect_err("it panics"));
    assert_eq!(failure.kind, OutcomeKind::HostError);
    assert!(failure.message.starts_with("the core failed: "));

    let ended = tokio::spawn(std::future::pending::<()>());
    ended.abort();
    let failure = lost(&ended.await.expect_err("it never ends by itself"));
    assert_eq!(failure.kind, OutcomeKind::Cancelled);
}

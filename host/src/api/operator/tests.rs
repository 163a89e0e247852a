use rusqlite::Connection;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::key_value::{self, BucketName, Quota};
use crate::queue::sqlite::{FILE_NAME, SqliteQueues};
use crate::queue::{NewMessage, Owner, QueueName, QueueSettings};
use crate::store::SystemClock;
use crate::telemetry::{Log, LogInvocations, Metrics};

/// Endpoints of a host with the queue `q`, which is ready.
async fn operator(folder: &TempDir) -> Operator {
    let path = folder.path().join(FILE_NAME);
    let clock = Arc::new(SystemClock::default());
    let (queues, _) = SqliteQueues::open(&path, clock.clone()).unwrap();
    let (log, _writer) = Log::start(std::io::sink()).unwrap();
    let metrics = Metrics::new().unwrap();
    metrics.show_store(queues.metrics()).unwrap();
    let telemetry = Telemetry {
        log,
        metrics: Arc::new(metrics),
        log_invocations: LogInvocations::All,
    };
    let declared = vec![(q(), QueueSettings::default())];
    queues.put(declared, Owner::Manifest).await.unwrap();
    let path = folder.path().join(key_value::FILE_NAME);
    let (buckets, _) = Buckets::open(&path, clock, Handle::current()).unwrap();
    let bucket = (BucketName::new("b").unwrap(), Quota::default());
    buckets.declare(vec![bucket]).await.unwrap();
    let disks = Disks::of([queues.disk(), buckets.disk()]);
    let operator = Operator::new(
        telemetry,
        Budget::new(1 << 20),
        Arc::new(queues),
        Arc::new(buckets),
        disks,
    );
    operator.set_ready(true);
    operator
}

fn q() -> QueueName {
    QueueName::new("q").unwrap()
}

async fn get(operator: &Operator, path: &str) -> (u16, String) {
    let response = operator.answer(&Method::GET, path).await.unwrap();
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    (response.status().as_u16(), text)
}

#[tokio::test]
async fn a_store_that_has_failed_makes_the_host_unhealthy_and_not_ready() {
    let folder = TempDir::new().unwrap();
    let operator = operator(&folder).await;
    assert_eq!(get(&operator, "/health").await, (200, "ok\n".to_owned()));
    assert_eq!(get(&operator, "/ready").await, (200, "ready\n".to_owned()));
    let other = Connection::open(folder.path().join(FILE_NAME)).unwrap();
    other.execute_batch("DROP TABLE message").unwrap();
    let sent = operator.queues.send(q(), vec![NewMessage::of("x")]).await;
    sent.unwrap_err();
    for path in ["/health", "/ready"] {
        let (status, text) = get(&operator, path).await;
        assert_eq!(status, 503, "{path}");
        assert!(text.contains("store") && text.contains("message"), "{text}");
    }
    let (status, text) = get(&operator, "/metrics").await;
    assert_eq!(status, 200, "the metrics of all else are there");
    assert!(text.contains("dunlin_store_commit_seconds_count"), "{text}");
    assert!(!text.contains("dunlin_queue_messages"), "{text}");
}

#[tokio::test]
async fn queues_and_buckets_are_in_the_metrics() {
    let folder = TempDir::new().unwrap();
    let operator = operator(&folder).await;
    let message = NewMessage::of("hello");
    operator.queues.send(q(), vec![message]).await.unwrap();
    let (_, text) = get(&operator, "/metrics").await;
    for line in [
        "dunlin_queue_messages{queue=\"q\"} 1",
        "dunlin_queue_bytes{queue=\"q\"} 5",
        "dunlin_key_value_keys{bucket=\"b\"} 0",
        "dunlin_key_value_bytes{bucket=\"b\"} 0",
        "dunlin_store_operations_total{store=\"queue\"} 2",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
}

#[tokio::test]
async fn other_methods_and_paths_cost_nothing() {
    let folder = TempDir::new().unwrap();
    let operator = operator(&folder).await;
    for path in ["/health", "/ready", "/metrics"] {
        let response = operator.answer(&Method::POST, path).await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert!(operator.answer(&Method::GET, "/").await.is_none());
}

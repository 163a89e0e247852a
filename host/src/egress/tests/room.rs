//! Functions that share what room the host has.

use super::*;

struct Functions {
    shared: Arc<Shared>,
    metrics: Metrics,
    _writer: LogWriter,
}

impl Functions {
    fn with_room_for(connections: usize, roots: Roots) -> Self {
        let (log, _writer) = Log::start(io::sink()).unwrap();
        let told = Told::new(&[&["127.0.0.1"]]);
        let shared = Arc::new(Shared::new(told, roots, connections, log));
        shared.own.set([]);
        Self {
            shared,
            metrics: Metrics::new().unwrap(),
            _writer,
        }
    }

    fn client(&self, name: &str) -> Arc<Client> {
        let name = FunctionName::new(name).unwrap();
        let handles = self.metrics.function(&name);
        let rules = ["http", "https"].map(|scheme| format!("{scheme}://127.0.0.0/8:*"));
        let shared = Arc::clone(&self.shared);
        Arc::new(Client::new(name, policy(&rules), shared, handles))
    }
}

fn no_roots() -> Roots {
    Roots::new(Vec::new(), Handle::current())
}

async fn begins(client: &Client, url: &str) -> http::Response<ResponseBody> {
    let response = client.send(get(url), options()).await;
    response.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn asks(client: &Client, url: &str) {
    let response = begins(client, url).await;
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "ok"
    );
}

/// Sends, and waits until it has to wait for room.
async fn waits(client: &Arc<Client>, url: &str) -> tokio::task::JoinHandle<()> {
    let free = client.free_requests();
    let (waiting, url) = (Arc::clone(client), url.to_owned());
    let waits = tokio::spawn(async move { asks(&waiting, &url).await });
    while client.free_requests() == free {
        tokio::task::yield_now().await;
    }
    waits
}

async fn upstream() -> (String, Arc<AtomicUsize>) {
    let (address, accepted) = server(answers).await;
    (format!("http://{address}/"), accepted)
}

#[tokio::test]
async fn who_rests_makes_room_for_who_does_not() {
    let functions = Functions::with_room_for(2, no_roots());
    let [one, other] = ["one", "other"].map(|name| functions.client(name));
    let [(a, _), (b, at_b), (c, _), (d, _)] = [
        upstream().await,
        upstream().await,
        upstream().await,
        upstream().await,
    ];
    asks(&one, &a).await;
    asks(&one, &b).await;
    // The one that has rested longest goes.
    asks(&other, &c).await;
    asks(&one, &b).await;
    assert_eq!(at_b.load(Ordering::Relaxed), 1);
    // And first one of who needs it: the other has rested less.
    asks(&other, &d).await;
    asks(&one, &b).await;
    assert_eq!(at_b.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn while_somebody_waits_for_room_nothing_begins_to_rest() {
    let functions = Functions::with_room_for(1, no_roots());
    let [one, other] = ["one", "other"].map(|name| functions.client(name));
    let ((a, _), (b, _)) = (upstream().await, upstream().await);
    let held = begins(&one, &a).await;
    let waits = waits(&other, &b).await;
    assert_eq!(held.into_body().collect().await.unwrap().to_bytes(), "ok");
    waits.await.unwrap();
}

#[tokio::test]
async fn a_connection_of_http2_makes_room_too() {
    let (address, root) = super::http2::serve(|_| async { "ok".into() }).await;
    let roots = || Roots::new(vec![root.clone()], Handle::current());
    let a = format!("https://{address}/");
    let (b, _) = upstream().await;
    // It rests.
    let functions = Functions::with_room_for(1, roots());
    let [one, other] = ["one", "other"].map(|name| functions.client(name));
    asks(&one, &a).await;
    asks(&other, &b).await;
    // It would begin to.
    let functions = Functions::with_room_for(1, roots());
    let [one, other] = ["one", "other"].map(|name| functions.client(name));
    let held = begins(&one, &a).await;
    let waits = waits(&other, &b).await;
    drop(held);
    waits.await.unwrap();
}

#[tokio::test]
async fn connections_of_a_version_that_is_gone_are_not_counted() {
    let functions = Functions::with_room_for(1, no_roots());
    let client = functions.client("one");
    let name = FunctionName::new("one").unwrap();
    let open = functions.metrics.function(&name).egress_connections();
    let (url, _) = upstream().await;
    asks(&client, &url).await;
    assert_eq!(open.get(), 1);
    drop(client);
    let begun = Instant::now();
    while open.get() != 0 {
        assert!(begun.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

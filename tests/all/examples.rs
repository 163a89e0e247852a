//! The examples, deployed from their own folders as their readers do, and doing
//! their work.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use dunlin_tests::{Host, Language, eventually, repository};
use image::{DynamicImage, GenericImageView as _, ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::egress::upstream::{Upstream, ok, request};
use crate::events::ask;

/// One test for each example: a folder, and the function that tries it.
macro_rules! examples {
    ($($name:ident in $folder:literal),* $(,)?) => {
        /// The folders that have a test.
        const TESTED: &[&str] = &[$($folder),*];

        mod deployed {
            $(
                #[test]
                fn $name() {
                    let host = super::deploy($folder);
                    super::$name(&host);
                    host.stop();
                }
            )*
        }
    };
}

examples! {
    cleanup in "cleanup",
    counter in "counter",
    dictionary in "dictionary",
    fetch in "fetch",
    hello in "hello",
    orders in "orders",
    pipeline in "pipeline",
    lambda_port in "lambda-port",
    sse in "sse",
    thumbnail in "thumbnail",
    users_api in "users-api",
}

fn deploy(folder: &str) -> Host {
    // Built here, once for all: side by side they would wait for one another.
    let _ = dunlin_tests::example(folder);
    let folder = repository().join("guest-examples").join(folder);
    Host::builder()
        .folder(folder)
        .args(["--insecure-admin"])
        .start()
}

/// The folders of examples, in Rust and in other languages.
fn folders() -> (BTreeSet<String>, BTreeSet<String>) {
    let (rust, others): (Vec<_>, Vec<_>) = std::fs::read_dir(repository().join("guest-examples"))
        .expect("there are examples")
        .map(|entry| entry.expect("a folder can be read"))
        .filter(|entry| entry.path().is_dir())
        .partition(|entry| entry.path().join("Cargo.toml").is_file());
    let names = |entries: Vec<std::fs::DirEntry>| {
        let names = entries.iter().map(|entry| entry.file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    };
    (names(rust), names(others))
}

#[test]
fn each_example_has_a_test() {
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    let (rust, others) = folders();
    assert_eq!(rust, tested, "add the new one to `examples!`, and try it");
    let languages = Language::ALL.map(|language| language.example().to_owned());
    assert_eq!(
        others,
        BTreeSet::from(languages),
        "add the new one to `Language`, and try it in `languages.rs`"
    );
}

#[test]
fn the_manifest_at_the_root_serves_all_of_them() {
    let host = Host::builder().folder(repository()).start();
    // They are listed after the line that says where it listens. Those in other languages
    // want tools that not everybody has.
    for name in folders().0 {
        let listed = || host.stderr().iter().any(|line| line.contains(&name));
        eventually(&format!("`{name}` is among what brings events"), || {
            listed().then_some(())
        });
    }
    assert_eq!(host.get("/hello").status, 200);
    assert_eq!(host.get("/dictionary/xlii").status, 200);
    assert_eq!(host.get("/users").status, 200);
    assert_eq!(host.get("/lambda").status, 200);
    assert_eq!(events(&host.get("/clock?count=1").text()).len(), 1);
    let picture = picture(400, 300, ImageFormat::Png);
    assert_eq!(host.post("/thumbnail?width=20", picture).status, 200);
    host.stop();
}

fn dictionary(host: &Host) {
    let word = host.get("/dictionary/mcmxcix");
    assert_eq!(
        (word.status, word.text().as_str()),
        (200, "mcmxcix: 1999\n")
    );
    let none = host.get("/dictionary/mcmic");
    assert_eq!(
        (none.status, none.text().as_str()),
        (404, "`mcmic` is not in the dictionary\n")
    );
    let found = host.get("/dictionary?prefix=mmmmcmxcvi");
    assert_eq!(
        (found.status, found.text().as_str()),
        (200, "mmmmcmxcvi\nmmmmcmxcvii\nmmmmcmxcviii\n")
    );
    // It is a snapshot that answers: nothing is prepared for an event.
    let noted = host.stderr().iter().any(|line| line.starts_with("note: "));
    assert!(!noted, "{:?}", host.stderr());
}

fn hello(host: &Host) {
    let world = host.get("/hello");
    assert_eq!(
        (world.status, world.text().as_str()),
        (200, "Hello, world!\n")
    );
    assert_eq!(
        world.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(host.get("/hello/ada").text(), "Hello, ada!\n");
    assert_eq!(
        host.get("/hello/J%C3%BCrgen%20B").text(),
        "Hello, Jürgen B!\n"
    );
    assert_eq!(host.get("/hello/ada/lovelace").status, 404);
    assert_eq!(host.get("/").status, 404);
    let post = host.post("/hello", "");
    assert_eq!(post.status, 405);
    assert!(
        post.header("allow")
            .is_some_and(|allow| allow.contains("GET")),
        "{post:?}"
    );
}

/// The events of a stream: their ids, and their data as JSON.
fn events(text: &str) -> Vec<(u64, Value)> {
    let field = |event: &str, name: &str| {
        let mut lines = event.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(own, _)| *own == name);
        found.map(|(_, value)| value.to_owned())
    };
    text.split_terminator("\n\n")
        .filter_map(|event| {
            let data = field(event, "data")?;
            assert_eq!(field(event, "event").as_deref(), Some("tick"));
            let id = field(event, "id")?.parse().unwrap();
            Some((id, serde_json::from_str(&data).unwrap()))
        })
        .collect()
}

fn sse(host: &Host) {
    let all = host.get("/clock?count=3&every=20");
    assert_eq!(all.status, 200);
    assert_eq!(all.header("content-type"), Some("text/event-stream"));
    assert_eq!(all.header("cache-control"), Some("no-cache"));
    let text = all.text();
    assert!(text.starts_with("retry: 20\n\n"), "{text}");
    let ticks = events(&text);
    let ids: Vec<u64> = ticks.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [1, 2, 3]);
    for (id, data) in ticks {
        assert_eq!((&data["tick"], &data["of"]), (&json!(id), &json!(3)));
    }

    // A client that comes again goes on where it was.
    let again = |seen: &str| {
        let headers = [("last-event-id", seen)];
        host.http
            .request("GET", "/clock?count=3&every=20", &headers, b"")
    };
    let ids: Vec<u64> = events(&again("2").text()).iter().map(|it| it.0).collect();
    assert_eq!(ids, [3]);
    assert_eq!(again("3").status, 204, "an `EventSource` stops then");
    assert_eq!(again("no number").status, 200);

    let refused = host.get("/clock?every=1");
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (400, "every is in milliseconds, 10 or more\n")
    );

    // The first event comes long before the last, and a client may go at any time.
    let mut connection = host.http.connect();
    connection.send("GET /clock?count=10000&every=10 HTTP/1.1\r\nhost: a\r\n\r\n");
    host.wait_for_metric("dunlin_invocations_running", &[], |running| running == 1.0);
    drop(connection);
    host.wait_for_metric(
        "dunlin_invocations_total",
        &[("outcome", "cancelled")],
        |cancelled| cancelled == 1.0,
    );
    host.wait_until_quiet();
}

fn counter(host: &Host) {
    assert_eq!(
        host.get("/counter/tea").json(),
        json!({ "count": 0, "last": null })
    );
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert_eq!(host.post("/counter/tea", "").status, 200));
        }
    });
    let last = host.post("/counter/tea", r#"{ "by": 26, "who": "ada" }"#);
    assert_eq!(last.header("content-type"), Some("application/json"));
    assert_eq!(last.json(), json!({ "count": 42, "last": "ada" }));
    assert_eq!(host.get("/counter/tea").json(), last.json());
    assert_eq!(host.get("/counter/coffee").json()["count"], 0);
    let too_far = host.post("/counter/tea", r#"{ "by": 999999 }"#);
    assert_eq!(too_far.status, 409, "{too_far:?}");
    assert_eq!(
        host.http.request("DELETE", "/counter/tea", &[], b"").status,
        204
    );
    assert_eq!(host.get("/counter/tea").json()["count"], 0);
    let put = host.http.request("PUT", "/counter/tea", &[], b"");
    assert_eq!(
        (put.status, put.header("allow")),
        (405, Some("GET, POST, DELETE"))
    );
}

/// Its upstream is on the internet: here it is the test's own, and what is kept is old soon.
fn fetch(deployed: &Host) {
    // It gets as far as that without one.
    let climbing = deployed.get("/fetch/a/%2e%2e/b");
    assert_eq!(climbing.status, 400, "{climbing:?}");
    assert_eq!(deployed.post("/fetch/a", "").status, 405);

    let answer = Arc::new(Mutex::new(ok("one")));
    let says = |text: &str| text.clone_into(&mut answer.lock().unwrap());
    let answers = Arc::clone(&answer);
    let upstream = Upstream::start(move |mut stream, tell| {
        let answers = Arc::clone(&answers);
        async move {
            while let Some(request) = request(&mut stream).await {
                tell.say(request.lines().next().unwrap_or_default());
                let answer = answers.lock().unwrap().clone();
                // An empty one is a connection that breaks off.
                if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    });
    let serve = |max_age: &str, max_keys: u32| {
        let component = dunlin_tests::example("fetch");
        let (url, rule) = (upstream.url("/v1/"), upstream.rule());
        Host::builder()
            .manifest(format!(
                "[host]\negress = [{rule:?}]\n\
                 [function.fetch]\ncomponent = {component:?}\negress = [{rule:?}]\n\
                 [function.fetch.config]\nupstream = {url:?}\n\
                 max-age = {max_age:?}\nmax-stale = \"1h\"\n\
                 [[function.fetch.http]]\npath = \"/fetch/{{*path}}\"\n\
                 [[function.fetch.key-value]]\nbucket = \"pages\"\n\
                 [key-value.pages]\nmax-keys = {max_keys}\n",
            ))
            .start()
    };
    let get = |host: &Host, path: &str| {
        let response = host.get(path);
        let cache = response.header("x-cache").map(str::to_owned);
        (response.status, cache, response.text())
    };
    let is =
        |status: u16, cache: &str, text: &str| (status, Some(cache.to_owned()), text.to_owned());

    let host = serve("1h", 20);
    assert_eq!(get(&host, "/fetch/a?b=c"), is(200, "miss", "one"));
    assert_eq!(upstream.hears(), "GET /v1/a?b=c HTTP/1.1");
    says(&ok("two"));
    assert_eq!(get(&host, "/fetch/a?b=c"), is(200, "hit", "one"));
    assert!(host.get("/fetch/a?b=c").header("age").is_some());
    says("HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno");
    for _ in 0..2 {
        assert_eq!(get(&host, "/fetch/none"), is(404, "miss", "no"));
        assert_eq!(upstream.hears(), "GET /v1/none HTTP/1.1");
    }
    // More than the bucket takes: the last is kept, and the first is not any more.
    says(&ok("many"));
    for page in 0..20 {
        let path = format!("/fetch/{page}");
        assert_eq!(get(&host, &path), is(200, "miss", "many"));
        assert_eq!(get(&host, &path), is(200, "hit", "many"));
        assert_eq!(upstream.hears(), format!("GET /v1/{page} HTTP/1.1"));
    }
    assert_eq!(get(&host, "/fetch/a?b=c"), is(200, "miss", "many"));
    host.stop();

    // What was kept is too old at once.
    while !upstream.is_silent() {}
    let host = serve("0s", 20);
    says(&ok("one"));
    assert_eq!(get(&host, "/fetch/a"), is(200, "miss", "one"));
    says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(get(&host, "/fetch/a"), is(200, "stale", "one"));
    says("");
    assert_eq!(get(&host, "/fetch/a"), is(200, "stale", "one"));
    let failed = host.get("/fetch/b");
    assert_eq!(failed.status, 502, "{failed:?}");
    let lines = host.guest_log(failed.request_id());
    assert_eq!(lines[0]["message"], "the upstream fails", "{lines:?}");
    assert_eq!(lines[0]["fields"]["url"], upstream.url("/v1/b"));
    says(&ok("two"));
    assert_eq!(get(&host, "/fetch/a"), is(200, "miss", "two"));
    drop(upstream);
    assert_eq!(get(&host, "/fetch/a"), is(200, "stale", "two"));
    host.stop();
}

/// It fires at night: here its folder and its time are the test's own.
fn cleanup(_deployed: &Host) {
    let uploads = tempfile::tempdir().unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3 * 3600);
    for name in ["old.txt", "new.txt", "older/old.txt"] {
        let path = uploads.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        if name.contains("old.txt") {
            file.set_modified(old).unwrap();
        }
    }
    let component = dunlin_tests::example("cleanup");
    let host = Host::builder()
        .manifest(format!(
            "[function.cleanup]\ncomponent = {component:?}\nenvironment = {{ MAX_AGE_HOURS = \"2\" }}\n\
             [[function.cleanup.schedule]]\nname = \"soon\"\nwhen = \"{}\"\n\
             [[function.cleanup.mount]]\nfrom = \"uploads\"\nto = \"/data\"\naccess = \"read-write\"\n\
             [host.mount.uploads]\npath = {:?}\naccess = \"read-write\"\n",
            crate::events::at(crate::events::SOON),
            uploads.path(),
        ))
        .start();
    let line = host.wait_for_log(|line| line["message"] == "cleaned up");
    assert_eq!(
        (&line["fields"]["deleted"], &line["fields"]["kept"]),
        (&json!(2), &json!(1)),
        "{line}"
    );
    assert!(uploads.path().join("new.txt").exists());
    assert!(!uploads.path().join("old.txt").exists());
    assert!(!uploads.path().join("older/old.txt").exists());
    host.stop();
}

/// What is received of a queue next, and deleted.
#[track_caller]
fn take(host: &Host, queue: &str) -> Value {
    let url = format!("http://h/1/{queue}");
    let request = json!({
        "QueueUrl": url, "WaitTimeSeconds": 5, "AttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    });
    let message = eventually(&format!("a message of {queue}"), || {
        let received = ask(&host.admin, "ReceiveMessage", &request)?;
        Some(received["Messages"].as_array()?[0].clone())
    });
    let request = json!({ "QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"] });
    ask(&host.admin, "DeleteMessage", &request).unwrap();
    message
}

fn orders(host: &Host) {
    let order = |id: &str, customer: &str| {
        json!({
            "id": id, "customer": customer,
            "lines": [{ "thing": "kite", "count": 2, "cents": 4200 }],
        })
        .to_string()
    };
    let bodies = [
        order("o-17", "ada"),
        "no order".to_owned(),
        // A client that was not sure.
        order("o-17", "ada"),
        order("o-18", "ada"),
    ];
    let entries: Vec<Value> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| json!({ "Id": index.to_string(), "MessageBody": body }))
        .collect();
    let request = json!({ "QueueUrl": "http://h/1/orders", "Entries": entries });
    ask(&host.admin, "SendMessageBatch", &request).unwrap();
    for id in ["o-17", "o-18"] {
        let invoice = take(host, "invoices.fifo");
        assert_eq!(invoice["Attributes"]["MessageGroupId"], "ada");
        let body: Value = serde_json::from_str(invoice["Body"].as_str().unwrap()).unwrap();
        assert_eq!(body["order"], id);
        assert_eq!(body["cents"], 8400);
    }
    let dead = take(host, "orders-dead");
    assert_eq!(dead["Body"], "no order");
    let rest = json!({ "QueueUrl": "http://h/1/invoices.fifo", "WaitTimeSeconds": 1 });
    let rest = ask(&host.admin, "ReceiveMessage", &rest).unwrap();
    assert_eq!(rest, json!({}), "one invoice for each order");
}

fn pipeline(host: &Host) {
    let large = picture(400, 300, ImageFormat::Png);
    let accepted = host.post("/images?width=100", &large);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    assert!(accepted.json()["id"].is_string());
    let thumbnail = take(host, "thumbnails");
    assert!(!thumbnail["Body"].as_str().unwrap().is_empty());

    let refused = host.post("/images", "no picture");
    if refused.status == 202 {
        let dead = take(host, "images-dead");
        assert_eq!(dead["Body"], "no picture");
    } else {
        assert_eq!(refused.status, 415, "{}", refused.text());
    }
    let too_large = host.post("/images", picture(1600, 900, ImageFormat::Png));
    assert_eq!(too_large.status, 413, "{}", too_large.text());
}

fn users_api(host: &Host) {
    let ada = json!({ "id": 1, "name": "ada", "email": "ada@example.com" });
    let eve = json!({ "name": "eve", "email": "eve@example.com" });
    let send = |method: &str, target: &str, body: &Value| {
        let headers = [("content-type", "application/json")];
        let response = host
            .http
            .request(method, target, &headers, body.to_string().as_bytes());
        let body = match response.body.as_slice() {
            [] => Value::Null,
            _ => response.json(),
        };
        (response.status, body)
    };
    let error = |status: u16, text: &str| (status, json!({ "error": text }));

    let all = host.get("/users");
    assert_eq!(
        (all.status, all.json().as_array().map(Vec::len)),
        (200, Some(3))
    );
    assert_eq!(all.header("content-type"), Some("application/json"));
    assert_eq!(host.get("/users?name=ada").json(), json!([ada]));
    assert_eq!(host.get("/users/1").json(), ada);
    let missing = host.get("/users/9");
    assert_eq!(
        (missing.status, missing.json()),
        error(404, "there is no user 9")
    );
    assert_eq!(host.get("/users/ada").status, 400);

    let created = host.post("/users", eve.to_string());
    assert_eq!(created.status, 201);
    assert_eq!(created.header("location"), Some("/users/4"));
    assert_eq!(created.json()["id"], 4);
    // What the example logs carries the id of the user and of the request.
    let lines = host.guest_log(created.request_id());
    assert_eq!(lines[0]["message"], "created a user", "{lines:?}");
    assert_eq!(lines[0]["fields"]["id"], 4, "{lines:?}");

    let (status, replaced) = send("PUT", "/users/2", &eve);
    assert_eq!((status, &replaced["name"]), (200, &json!("eve")));
    assert_eq!(send("PUT", "/users/9", &eve).0, 404);
    assert_eq!(send("DELETE", "/users/2", &Value::Null), (204, Value::Null));
    // Changes are answered, not kept: each event finds a fresh instance.
    assert_eq!(host.get("/users/2").json()["name"], "grace");

    let nameless = json!({ "name": " ", "email": "eve@example.com" });
    assert_eq!(
        send("POST", "/users", &nameless),
        error(422, "`name` is empty")
    );
    assert_eq!(send("POST", "/users", &json!({ "name": "eve" })).0, 422);
    assert_eq!(host.post("/users", "{").status, 400);
    let patched = host.http.request("PATCH", "/users/1", &[], b"{}");
    assert_eq!(
        (patched.status, patched.header("allow")),
        (405, Some("GET, PUT, DELETE"))
    );
    assert_eq!(host.get("/users/1/friends").status, 404);
}

/// A picture with large shapes and fine grain, as a camera makes them.
fn picture(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut grain = 0x2545_f491_u32;
    let picture = RgbImage::from_fn(width, height, |x, y| {
        grain ^= grain << 13;
        grain ^= grain >> 17;
        grain ^= grain << 5;
        let noise = (grain >> 29) as u8;
        let sky = (255 * y / height) as u8;
        let hill = (x * 200 / width) as u8 / 2 + (x / 7 % 40) as u8;
        Rgb([
            sky / 2 + noise,
            hill.saturating_add(noise),
            (255 - sky) / 2 + noise,
        ])
    });
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture)
        .write_to(&mut bytes, format)
        .expect("a picture can be written to memory");
    bytes.into_inner()
}

fn thumbnail(host: &Host) {
    let photograph = picture(4000, 3000, ImageFormat::Jpeg);
    assert!(photograph.len() > 500_000, "{} bytes", photograph.len());
    let drawing = picture(1600, 900, ImageFormat::Png);
    for (large, width, height, kind, format) in [
        (&photograph, 200, 150, "image/jpeg", ImageFormat::Jpeg),
        (&photograph, 1024, 768, "image/jpeg", ImageFormat::Jpeg),
        (&drawing, 320, 180, "image/png", ImageFormat::Png),
    ] {
        let response = host.post(&format!("/thumbnail?width={width}"), large);
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("content-type"), Some(kind));
        assert_eq!(image::guess_format(&response.body).ok(), Some(format));
        let small = image::load_from_memory(&response.body).expect("it is a picture");
        assert_eq!(small.dimensions(), (width, height));
        assert!(response.body.len() < large.len() / 3);
        // It is that picture: sky above, which is blue, and none below.
        let small = small.to_rgb8();
        let top = small.get_pixel(width / 2, 2);
        let bottom = small.get_pixel(width / 2, height - 3);
        assert!(
            top[2] > 90 && bottom[2] < 40 && bottom[0] > 90,
            "{top:?} {bottom:?}"
        );
    }
    // It is never made larger.
    let tiny = host.post("/thumbnail?width=2000", picture(40, 30, ImageFormat::Png));
    let tiny = image::load_from_memory(&tiny.body).expect("it is a picture");
    assert_eq!(tiny.dimensions(), (40, 30));

    let counted = [("name", "thumbnails"), ("format", "image/jpeg")];
    host.wait_for_metric("dunlin_guest_counter_total", &counted, |n| n == 2.0);

    let refused = |target: &str, body: &[u8]| {
        let response = host.post(target, body);
        assert!(response.json()["error"].is_string(), "{response:?}");
        response.status
    };
    assert_eq!(refused("/thumbnail", &drawing), 400);
    for width in ["0", "-1", "wide", "99999", ""] {
        assert_eq!(
            refused(&format!("/thumbnail?width={width}"), &drawing),
            400,
            "{width}"
        );
    }
    assert_eq!(refused("/thumbnail?width=200", b"GIF89a"), 415);
    assert_eq!(refused("/thumbnail?width=200", b""), 415);
    assert_eq!(refused("/thumbnail?width=200", &photograph[..100]), 422);
    assert_eq!(refused("/thumbnail?width=200", &drawing[..1000]), 422);
    // A small file that claims to be larger than the function's memory.
    assert_eq!(refused("/thumbnail?width=200", &bomb()), 422);
    assert_eq!(host.get("/thumbnail?width=200").status, 405);
}

/// A PNG of a few kilobytes with 30 000 × 30 000 pixels, all black.
fn bomb() -> Vec<u8> {
    let mut bytes = picture(1, 1, ImageFormat::Png);
    // The dimensions stand in the first chunk, and are checked by a CRC.
    bytes[16..20].copy_from_slice(&30_000_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&30_000_u32.to_be_bytes());
    let crc = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn lambda_port(host: &Host) {
    let response = host.get("/lambda?name=ada");
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(
        response.json(),
        json!({
            "message": "Hello, ada!",
            "method": "GET",
            "path": "/lambda",
            "function": "lambda-port",
            "requestId": response.request_id(),
        })
    );
    assert_eq!(host.get("/lambda").json()["message"], "Hello, world!");
    // Whatever else comes with the event, the types of Lambda take it: cookies,
    // names that occur twice, and a body that is no text.
    let everything = host.http.request(
        "PUT",
        "/lambda?name=J%C3%BCrgen&tag=a&tag=b&empty=",
        &[
            ("cookie", "session=1; theme=dark"),
            ("x-twice", "a"),
            ("x-twice", "b"),
            ("content-type", "application/octet-stream"),
        ],
        &[0, 159, 146, 150, 255],
    );
    assert_eq!(everything.status, 200, "{everything:?}");
    assert_eq!(everything.json()["message"], "Hello, Jürgen!");
    assert_eq!(everything.json()["method"], "PUT");
    assert_eq!(host.get("/lambda/more").status, 404);
}

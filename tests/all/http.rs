//! The HTTP trigger as clients meet it: the real binary, raw sockets and an
//! HTTP/2 client.

mod connections;
mod disconnects;
pub(crate) mod h2c;
mod malformed;
mod payload;
mod requests;
mod sizes;
mod timeouts;
pub(crate) mod wire;

use dunlin_tests::{Builder, Host, guest};

/// The function `probe` at `/probe`, and below it.
pub(crate) const PROBE: &str = r#"
[function.probe]
component = "{probe}"
timeout = "20s"

[[function.probe.http]]
path = "/probe"

[[function.probe.http]]
path = "/probe/{*rest}"
"#;

/// A host with a manifest in which `{probe}`, `{consumer}` and so on are components.
pub(crate) fn box_with(manifest: &str) -> Builder {
    let mut manifest = manifest.to_owned();
    let names = ["probe", "payload", "consumer", "lambda-consumer", "values"];
    for name in names {
        let placeholder = format!("{{{name}}}");
        if manifest.contains(&placeholder) {
            manifest =
                manifest.replace(&placeholder, guest(name).to_str().expect("a path of ours"));
        }
    }
    Host::builder().manifest(manifest)
}

/// As [`box_with`], and serving.
#[track_caller]
pub(crate) fn up(manifest: &str) -> Host {
    box_with(manifest).start()
}

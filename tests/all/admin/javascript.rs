//! AWS's SDK for JavaScript, which checks digests that others do not, in a folder that the
//! test makes and keeps in the folder for builds.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use dunlin_tests::{repository, target_dir};

use super::boto3::{EVENTS, run};
use crate::http::up;

/// Exact versions, so that a new one does not change what the test says.
const PACKAGES: [&str; 2] = [
    "@aws-sdk/client-sqs@3.1169.0",
    "@aws-sdk/client-lambda@3.1162.0",
];

/// A folder with the SDK.
fn sdk() -> PathBuf {
    let folder = target_dir().join("tmp").join("javascript");
    std::fs::create_dir_all(&folder).unwrap();
    // Another run of the tests may be making it.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let marker = folder.join("installed");
    let wanted = PACKAGES.join(" ");
    if std::fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    let installed = run(Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund"])
        .args(["--ignore-scripts", "--save-exact", "--prefix"])
        .arg(&folder)
        .args(PACKAGES));
    installed.unwrap_or_else(|error| panic!("npm cannot install {wanted}: {error}"));
    std::fs::write(marker, wanted).unwrap();
    folder
}

#[test]
fn the_javascript_sdk_feeds_queues_and_sends_events() {
    if let Err(why) = run(Command::new("node").arg("--version")) {
        // Past the harness, which keeps what tests say that succeed.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: AWS's SDK for JavaScript: it needs node and npm: {why}"
        );
        return;
    }
    let host = up(&format!(
        "{EVENTS}\n[queue.orders]\n[queue.small]\nmax-messages = 1\n"
    ));
    let result = run(Command::new("node")
        .arg(repository().join("tests/all/admin/sdk.mjs"))
        .arg(format!("http://{}", host.admin.address()))
        .arg(sdk())
        .env(
            "AWS_SHARED_CREDENTIALS_FILE",
            host.state().join("admin.key"),
        )
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_ACCESS_KEY_ID")
        .env("HOME", host.folder()));
    let said = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(said.trim(), "ok");
}

//! The public test suite for Signature Version 4, which the crate `aws-sigv4` brings in its
//! package. All cases run; what a case cannot be asked for is listed by name, with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use time::format_description::well_known::Rfc3339;

use super::*;

const CASES: usize = 40;

/// See [`old_cases`].
const WITHOUT_CONTEXT: [&str; 2] = ["double-encode-path", "double-url-encode"];

/// Their `request.txt` was changed (`%20` for the space) and no longer fits the other files, which
/// have the path as it was: it is taken from `header-signed-request.txt`.
const PATH_FROM_SIGNED_REQUEST: [&str; 1] = ["get-space-normalized"];

/// Carry a session token, which our verifier refuses by policy.
const WITH_SESSION_TOKEN: [&str; 3] = [
    "get-vanilla-with-session-token",
    "post-sts-header-after",
    "post-sts-header-before",
];

/// Signed without normalising the path, as for S3 alone: canonical request and signature are
/// checked, but to our verifier the path is another.
const NOT_NORMALISED: [&str; 6] = [
    "get-relative-relative-unnormalized",
    "get-relative-unnormalized",
    "get-slash-dot-slash-unnormalized",
    "get-slash-pointless-dot-unnormalized",
    "get-slash-unnormalized",
    "get-slashes-unnormalized",
];

/// `http::Uri` cannot hold the raw space in their path, so our signer never sees it.
const NO_URI: [&str; 2] = ["get-space-normalized", "get-space-unnormalized"];

#[test]
fn all_cases_of_the_public_suite_agree() {
    let suite = suite_dir();
    let mut seen = BTreeSet::new();
    let (mut refused_tokens, mut mismatches, mut no_uri) = (vec![], vec![], vec![]);
    let mut accepted = 0;
    for entry in fs::read_dir(&suite).expect("the suite is a folder") {
        let dir = entry.expect("readable").path();
        let name = dir
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(seen.insert(name.clone()));
        if WITHOUT_CONTEXT.contains(&name.as_str()) {
            continue;
        }
        let case = Case::read(&name, dir);
        case.check_header_signature();
        case.check_query_signature();
        match case.verify() {
            Ok(_) => accepted += 1,
            Err(SignatureError::SessionToken) => refused_tokens.push(name.clone()),
            Err(SignatureError::Mismatch) => mismatches.push(name.clone()),
            Err(error) => panic!("{name}: {error}"),
        }
        if !case.check_signer() {
            no_uri.push(name);
        }
    }
    refused_tokens.sort();
    mismatches.sort();
    no_uri.retain(|name| !refused_tokens.contains(name) && !mismatches.contains(name));
    no_uri.sort();
    assert_eq!(seen.len(), CASES, "{seen:?}");
    assert_eq!(refused_tokens, WITH_SESSION_TOKEN);
    assert_eq!(mismatches, NOT_NORMALISED);
    assert_eq!(no_uri, NO_URI);
    assert_eq!(accepted, CASES - 2 - 3 - 6);
}

/// Two cases of an older suite, without `context.json`. Their canonical requests and signed
/// requests are of different days, so each is checked for itself.
#[test]
fn old_cases() {
    let suite = suite_dir();
    let cases = [
        (
            "double-encode-path",
            // The keys that aws-sigv4's own tests use for this case.
            Credentials::unchecked("ANOTREAL", "notrealrnrELgWzOk3IfjzDKtFBhDby"),
        ),
        (
            "double-url-encode",
            Credentials::unchecked("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        ),
    ];
    assert_eq!(cases.each_ref().map(|(name, _)| *name), WITHOUT_CONTEXT);
    for (name, credentials) in cases {
        let file = |file: &str| suite.join(name).join(file);
        let canonical_request = read(&file("header-canonical-request.txt"));
        let date = canonical_request
            .lines()
            .find_map(|line| line.strip_prefix("x-amz-date:"))
            .expect("the date of the canonical request");
        let mut request = Message::parse(&read(&file("request.txt")));
        set_header(&mut request.headers, "x-amz-date", date);
        let head = canonical::head(&request.head(), &["host", "x-amz-date"]).expect("all there");
        let payload = PayloadHash::of(b"");
        assert_eq!(joined(&head, &payload), canonical_request, "{name}");

        if name == "double-url-encode" {
            let scope = Scope {
                date: "20210511",
                region: "us-east-2",
                service: "lambda",
            };
            let text = string_to_sign(date, scope, &head, &payload);
            let expected = read(&file("header-string-to-sign.txt"));
            assert_eq!(text, expected.trim_end(), "{name}");
        }

        let signed = Message::parse(&read(&file("header-signed-request.txt")));
        let signed_at = signing_time(&signed.headers).expect("a time");
        let verifier = Verifier {
            keys: &[credentials],
            services: &["lambda", "service"],
        };
        verifier
            .verify(&signed.head(), &payload, signed_at)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

struct Case {
    name: String,
    dir: PathBuf,
    request: Message,
    credentials: Credentials,
    token: Option<String>,
    omit_session_token: bool,
    normalize: bool,
    sign_body: bool,
    expiration: u64,
    region: String,
    service: String,
    now: OffsetDateTime,
    timestamp: String,
}

impl Case {
    fn read(name: &str, dir: PathBuf) -> Self {
        let context = read(&dir.join("context.json"));
        let context: serde_json::Value = serde_json::from_str(&context).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
        let flag = |name: &str, default: bool| context[name].as_bool().unwrap_or(default);
        let keys = &context["credentials"];
        let now = OffsetDateTime::parse(&text(&context["timestamp"]), &Rfc3339).expect("a time");
        let mut request = Message::parse(&read(&dir.join("request.txt")));
        if PATH_FROM_SIGNED_REQUEST.contains(&name) {
            let signed = Message::parse(&read(&dir.join("header-signed-request.txt")));
            assert_ne!(signed.path, request.path);
            request.path = signed.path;
        }
        // AKIDEXAMPLE is shorter than we let a key be.
        let credentials = Credentials::unchecked(
            &text(&keys["access_key_id"]),
            &text(&keys["secret_access_key"]),
        );
        Self {
            credentials,
            token: keys["token"].as_str().map(str::to_owned),
            omit_session_token: flag("omit_session_token", false),
            normalize: flag("normalize", true),
            sign_body: flag("sign_body", true),
            expiration: context["expiration_in_seconds"].as_u64().expect("seconds"),
            region: text(&context["region"]),
            service: text(&context["service"]),
            now,
            timestamp: basic_iso_8601(now),
            name: name.to_owned(),
            dir,
            request,
        }
    }

    fn file(&self, name: &str) -> String {
        read(&self.dir.join(name))
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            date: date_of(&self.timestamp),
            region: &self.region,
            service: &self.service,
        }
    }

    /// Canonical request, string to sign and signature against the files `{kind}-….txt`.
    fn check(&self, kind: &str, message: &Message, signed_headers: &[&str]) {
        let path = if self.normalize {
            canonical::normalise_path(&message.path)
        } else {
            message.path.clone()
        };
        let path = canonical::encode_path(&path);
        let head =
            canonical::assemble(&message.head(), &path, signed_headers).expect("all headers there");
        let payload = PayloadHash::of(&message.body);
        let name = format!("{}, {kind}", self.name);
        assert_eq!(
            joined(&head, &payload),
            self.file(&format!("{kind}-canonical-request.txt")),
            "{name}"
        );
        let text = string_to_sign(&self.timestamp, self.scope(), &head, &payload);
        assert_eq!(
            text,
            self.file(&format!("{kind}-string-to-sign.txt")),
            "{name}"
        );
        assert_eq!(
            signature(&self.credentials, self.scope(), &text),
            self.file(&format!("{kind}-signature.txt")),
            "{name}"
        );
    }

    /// The request of the case with what signing adds to it.
    fn check_header_signature(&self) {
        let mut message = self.request.clone();
        set_header(&mut message.headers, "x-amz-date", &self.timestamp);
        if let (Some(token), false) = (&self.token, self.omit_session_token) {
            set_header(&mut message.headers, "x-amz-security-token", token);
        }
        if self.sign_body {
            let hash = PayloadHash::of(&message.body);
            set_header(&mut message.headers, "x-amz-content-sha256", &hash.0);
        }
        let headers = message.headers.clone();
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        self.check("header", &message, &names);
    }

    /// Presigned URLs are not for us, but their canonical queries are a good test.
    fn check_query_signature(&self) {
        let mut message = Message::parse(&self.file("query-signed-request.txt"));
        let verifier = Verifier {
            keys: std::slice::from_ref(&self.credentials),
            services: &[&self.service],
        };
        let payload = PayloadHash::of(&message.body);
        assert_eq!(
            verifier.verify(&message.head(), &payload, self.now),
            Err(SignatureError::Presigned),
            "{}",
            self.name
        );

        assert!(
            message
                .query
                .contains(&format!("X-Amz-Expires={}", self.expiration))
        );
        let unsigned: Vec<&str> = message
            .query
            .split('&')
            .filter(|pair| !pair.starts_with("X-Amz-Signature="))
            .filter(|pair| !(self.omit_session_token && pair.starts_with("X-Amz-Security-Token=")))
            .collect();
        let names = unsigned
            .iter()
            .find_map(|pair| pair.strip_prefix("X-Amz-SignedHeaders="))
            .expect("the names of the signed headers")
            .replace("%3B", ";");
        message.query = unsigned.join("&");
        let names: Vec<&str> = names.split(';').collect();
        self.check("query", &message, &names);
    }

    fn verify(&self) -> Result<Identity, SignatureError> {
        let message = Message::parse(&self.file("header-signed-request.txt"));
        let verifier = Verifier {
            keys: std::slice::from_ref(&self.credentials),
            services: &[&self.service],
        };
        verifier.verify(&message.head(), &PayloadHash::of(&message.body), self.now)
    }

    /// Our signer's header against that of the signed request. False if it cannot be asked.
    fn check_signer(&self) -> bool {
        let (normal, path) = (&self.request, &self.request.path);
        let is_normal = self.normalize || canonical::normalise_path(path) == *path;
        let target = format!("{path}?{}", normal.query);
        let builder = http::Request::builder().method(normal.method.as_str());
        let Ok(request) = builder.uri(target).body(()) else {
            return false;
        };
        if !is_normal || self.token.is_some() {
            return false;
        }
        let mut parts = request.into_parts().0;
        parts.headers = normal.headers.clone();
        let payload = PayloadHash::of(&normal.body);
        if self.sign_body {
            set_header(&mut parts.headers, "x-amz-content-sha256", &payload.0);
        }
        let signer = Signer {
            credentials: &self.credentials,
            region: &self.region,
            service: &self.service,
        };
        signer
            .sign(&mut parts, &payload, self.now)
            .expect("there is a host");
        let signed = Message::parse(&self.file("header-signed-request.txt"));
        assert_eq!(
            parts.headers[AUTHORIZATION], signed.headers[AUTHORIZATION],
            "{}",
            self.name
        );
        true
    }
}

/// A request as the suite writes it down. The target is taken as it is: some hold spaces.
#[derive(Debug, Clone)]
struct Message {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Message {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.trim_end().lines();
        let first = lines.next().expect("a request line");
        let (method, target) = first.split_once(' ').expect("method and target");
        let target = target.trim_end_matches(" HTTP/1.1");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));

        // Folded lines are one value, as an HTTP parser reads them.
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in lines {
            match line.split_once(':') {
                Some((name, value)) if !line.starts_with(' ') => {
                    fields.push((name.to_owned(), value.to_owned()));
                }
                _ => {
                    let (_, value) = fields.last_mut().expect("a line to continue");
                    value.push_str(line);
                }
            }
        }
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a header name");
            headers.append(name, value.trim().parse().expect("a header value"));
        }
        let length = headers.get("content-length").map_or(0, |length| {
            let length = length.to_str().expect("digits");
            length.parse::<usize>().expect("digits")
        });
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: body.as_bytes()[..length].to_vec(),
        }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead {
            method: &self.method,
            path: &self.path,
            query: &self.query,
            authority: None,
            headers: &self.headers,
        }
    }
}

fn set_header(headers: &mut HeaderMap, name: &'static str, value: &str) {
    headers.insert(name, value.parse().expect("a header value"));
}

fn joined(head: &[u8], payload: &PayloadHash) -> String {
    let head = std::str::from_utf8(head).expect("the suite is UTF-8");
    format!("{head}{}", payload.0)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The suite's folder in the package of the dev-dependency `aws-sigv4`, wherever cargo keeps it.
fn suite_dir() -> PathBuf {
    let cargo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    // For this platform only: cargo would fetch the packages of all others too.
    let version = cargo(&["-vV"]);
    let platform = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("cargo names its host");
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--filter-platform",
        platform,
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    let package = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|package| package["name"] == "aws-sigv4")
        .expect("aws-sigv4 is a dev-dependency");
    let manifest = package["manifest_path"].as_str().expect("a path");
    Path::new(manifest)
        .with_file_name("aws-signing-test-suite")
        .join("v4")
}

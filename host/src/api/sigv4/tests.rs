mod against_aws_sigv4;
mod suite;

use http::{Request, StatusCode};
use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:00 UTC);
const INVOKE: &str = "/2015-03-31/functions/my-fn%3Aprod/invocations?Qualifier=prod&a=1";

fn key() -> Credentials {
    Credentials::new(
        "DUNLINEXAMPLEKEY2345",
        "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY23",
    )
    .expect("a well-formed pair")
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut builder = Request::builder().method(method).uri(target);
    if headers.iter().all(|(name, _)| *name != "host") {
        builder = builder.header(HOST, "127.0.0.1:7100");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let request = builder.body(()).expect("the test's request is valid");
    request.into_parts().0
}

/// Signed with [`key`] at [`NOW`].
fn signed(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> request::Parts {
    let mut parts = request(method, target, headers);
    sign(&mut parts, body);
    parts
}

fn sign(parts: &mut request::Parts, body: &[u8]) {
    let credentials = key();
    let signer = Signer {
        credentials: &credentials,
        region: "edge-1",
        service: "lambda",
    };
    signer
        .sign(parts, &PayloadHash::of(body), NOW)
        .expect("there is a host");
}

fn verify_at(
    parts: &request::Parts,
    body: &[u8],
    now: OffsetDateTime,
) -> Result<Identity, SignatureError> {
    let verifier = Verifier {
        keys: &[key()],
        services: &["lambda"],
    };
    verifier.verify(&RequestHead::from(parts), &PayloadHash::of(body), now)
}

fn verify(parts: &request::Parts, body: &[u8]) -> Result<Identity, SignatureError> {
    verify_at(parts, body, NOW)
}

fn set(parts: &mut request::Parts, name: &'static str, value: &str) {
    let value = HeaderValue::from_str(value).expect("the test's header is valid");
    parts.headers.insert(name, value);
}

fn authorization(parts: &request::Parts) -> String {
    let value = parts.headers[AUTHORIZATION].to_str().expect("ASCII");
    value.to_owned()
}

/// Code, status and text, as the client gets them.
#[track_caller]
fn check_refused(
    result: Result<Identity, SignatureError>,
    (code, status): (&str, StatusCode),
    text: &str,
) {
    let error = result.expect_err("the request must be refused");
    assert_eq!((error.code(), error.status()), (code, status), "{error:?}");
    assert!(
        error.message().contains(text),
        "{text:?} is not in {:?}",
        error.message()
    );
}

const INVALID: (&str, StatusCode) = ("InvalidSignatureException", StatusCode::FORBIDDEN);
const INCOMPLETE: (&str, StatusCode) = ("IncompleteSignatureException", StatusCode::BAD_REQUEST);
const MISSING: (&str, StatusCode) = ("MissingAuthenticationTokenException", StatusCode::FORBIDDEN);
const UNRECOGNIZED: (&str, StatusCode) = ("UnrecognizedClientException", StatusCode::FORBIDDEN);
const TOO_LARGE: (&str, StatusCode) = (
    "RequestEntityTooLargeException",
    StatusCode::PAYLOAD_TOO_LARGE,
);
const NO_MATCH: &str = "The request signature we calculated does not match the signature you \
                        provided. Check your AWS Secret Access Key and signing method. Consult \
                        the service documentation for details.";

/// SplitMix64: the same numbers on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

#[test]
fn what_the_signer_signs_is_accepted() {
    let parts = signed("POST", INVOKE, &[("x-amz-log-type", "Tail")], b"{}");
    let identity = verify(&parts, b"{}").expect("accepted");
    assert_eq!(
        identity,
        Identity {
            access_key_id: "DUNLINEXAMPLEKEY2345".to_owned(),
            region: "edge-1".to_owned(),
            service: "lambda".to_owned(),
        }
    );
}

#[test]
fn the_signer_takes_the_host_from_the_uri_and_replaces_an_older_signature() {
    let (mut parts, ()) = Request::get("http://box.local:7100/x")
        .header(AUTHORIZATION, "Basic secret")
        .header("user-agent", "dunlin")
        .body(())
        .expect("valid")
        .into_parts();
    sign(&mut parts, b"");
    assert_eq!(parts.headers[HOST], "box.local:7100");
    assert!(authorization(&parts).contains("SignedHeaders=host;x-amz-date, "));
    verify(&parts, b"").expect("accepted");
    assert!(
        parts.headers[AUTHORIZATION].is_sensitive(),
        "the header must not be printed"
    );

    let (mut parts, ()) = Request::get("/x").body(()).expect("valid").into_parts();
    let credentials = key();
    let signer = Signer {
        credentials: &credentials,
        region: "edge-1",
        service: "lambda",
    };
    let error = signer.sign(&mut parts, &PayloadHash::of(b""), NOW);
    assert_eq!(error, Err(SignatureError::HostUnsigned));
}

/// Signed by botocore 1.43.11 with [`key`] at [`NOW`].
#[test]
fn requests_of_botocore_are_accepted() {
    let requests = [
        (
            "POST",
            "/2015-03-31/functions/my-fn%3Aprod/invocations",
            "host;x-amz-date;x-amz-log-type",
            "e2d9b391d54108d0441001e9c223ceeb52deb7ed2b1e84728ea6b97b87e49400",
            r#"{"a":1}"#,
        ),
        (
            "GET",
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aedge-1%3A123456789012%3Afunction%3Af%3A%24LATEST",
            "host;x-amz-date",
            "628764ce4041a0e2f5f76b6c334d040d6634b84eafd5ba39f6141b561ecfb542",
            "",
        ),
        (
            "DELETE",
            "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aedge-1%3A123456789012%3Afunction%3Af?tagKeys=a%20b&tagKeys=%C3%BC%2B%2F%3D%26&tagKeys=Z",
            "host;x-amz-date",
            "bbaa0783adfba05fbe6be3d0e8a83c4ee46e1ad9a8599ab0eacaa5ddd8a7a8a8",
            "",
        ),
    ];
    for (method, target, signed_headers, signature, body) in requests {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=DUNLINEXAMPLEKEY2345/20261121/edge-1/lambda/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        );
        let mut headers = vec![
            ("x-amz-date", "20261121T120000Z"),
            ("authorization", authorization.as_str()),
            ("amz-sdk-request", "attempt=1"),
            ("user-agent", "x"),
        ];
        if signed_headers.contains("x-amz-log-type") {
            headers.push(("x-amz-log-type", "Tail"));
        }
        let parts = request(method, target, &headers);
        verify(&parts, body.as_bytes()).unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[test]
fn any_change_to_what_is_signed_is_refused() {
    let original = || signed("POST", INVOKE, &[("x-amz-log-type", "Tail")], b"{}");
    verify(&original(), b"{}").expect("accepted before the change");

    let mut parts = original();
    parts.method = http::Method::PUT;
    check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);

    for target in [
        "/2015-03-31/functions/my-fn%3Adev/invocations?Qualifier=prod&a=1",
        "/2015-03-31/functions/my-fn:prod/invocations?Qualifier=prod&a=1",
        "/2015-03-31/functions/my-fn%253Aprod/invocations?Qualifier=prod&a=1",
        "/2015-03-31/functions/my-fn%3aprod/invocations?Qualifier=prod&a=1",
        "/2015-03-31/functions/my-fn%3Aprod/invocations/?Qualifier=prod&a=1",
        "/2015-03-31/functions/my-fn%3Aprod/invocations?Qualifier=dev&a=1",
        "/2015-03-31/functions/my-fn%3Aprod/invocations?Qualifier=prod&a=1&a=1",
        "/2015-03-31/functions/my-fn%3Aprod/invocations?Qualifier=prod&a",
        "/2015-03-31/functions/my-fn%3Aprod/invocations",
    ] {
        let mut parts = original();
        parts.uri = target.parse().expect("valid");
        check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);
    }

    for (name, value) in [("x-amz-log-type", "None"), ("host", "127.0.0.1:7101")] {
        let mut parts = original();
        set(&mut parts, name, value);
        check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);
    }
    let mut parts = original();
    parts
        .headers
        .append("x-amz-log-type", HeaderValue::from_static("Tail"));
    check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);

    // Same day, within the skew, but not the time that was signed.
    let mut parts = original();
    set(&mut parts, "x-amz-date", "20261121T120001Z");
    check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);

    for body in [&b""[..], b"{ }", b"{}\n"] {
        check_refused(verify(&original(), body), INVALID, NO_MATCH);
    }

    let signature = authorization(&original());
    for (from, to) in [("edge-1", "edge-2"), (";x-amz-log-type", "")] {
        let mut parts = original();
        parts.headers.remove("x-amz-log-type");
        if from == "edge-1" {
            set(&mut parts, "x-amz-log-type", "Tail");
        }
        set(&mut parts, "authorization", &signature.replace(from, to));
        check_refused(verify(&parts, b"{}"), INVALID, NO_MATCH);
    }
}

#[test]
fn every_digit_of_the_signature_counts() {
    let parts = signed("GET", "/x", &[], b"");
    let value = authorization(&parts);
    for index in value.len() - 64..value.len() {
        let other = if value.as_bytes()[index] == b'0' {
            "1"
        } else {
            "0"
        };
        let mut changed = value.clone();
        changed.replace_range(index..=index, other);
        let mut parts = parts.clone();
        set(&mut parts, "authorization", &changed);
        check_refused(verify(&parts, b""), INVALID, NO_MATCH);
    }
}

#[test]
fn equivalent_forms_of_path_and_query_are_one_request() {
    let parts = signed("GET", "/a/c?b=2&a=x%20y&c", &[], b"");
    for target in [
        "/a/c?a=x%20y&b=2&c=",
        "/a/c?c&a=x+y&b=2",
        "/a//b/.././c?b=2&a=x%20y&c",
        "/a/c?&&b=2&%61=x%20y&c&",
    ] {
        let mut parts = parts.clone();
        parts.uri = target.parse().expect("valid");
        verify(&parts, b"").unwrap_or_else(|error| panic!("{target}: {error}"));
    }
}

#[test]
fn the_canonical_query_is_decoded_encoded_and_sorted() {
    for (query, canonical) in [
        ("", ""),
        ("a", "a="),
        ("a=", "a="),
        ("=", "="),
        ("=b", "=b"),
        ("a=b=c", "a=b%3Dc"),
        ("b=1&a=2&a=1", "a=1&a=2&b=1"),
        // By the encoded name, then the value: not by the joined text, where `-` is before `=`.
        ("a-b=1&a=2", "a=2&a-b=1"),
        ("a+b=c+d", "a%20b=c%20d"),
        ("a%2Bb=1", "a%2Bb=1"),
        ("%c3%bc=%e2%82%ac", "%C3%BC=%E2%82%AC"),
        ("ü=€", "%C3%BC=%E2%82%AC"),
        ("%ff=%zz&%=%4", "%25=%254&%FF=%25zz"),
        ("a=~-_.!*'()", "a=~-_.%21%2A%27%28%29"),
        ("Qualifier=%24LATEST", "Qualifier=%24LATEST"),
        ("tagKeys=a&&tagKeys=B&", "tagKeys=B&tagKeys=a"),
    ] {
        assert_eq!(canonical::query(query), canonical, "{query}");
    }
}

#[test]
fn the_canonical_path_is_normalised_and_encoded_again() {
    for (path, canonical) in [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a//", "/a/"),
        ("/...", "/..."),
        ("*", "/%2A"),
        ("/my-fn%3Aprod", "/my-fn%253Aprod"),
        ("/my-fn:prod", "/my-fn%3Aprod"),
        ("/f%3A%24LATEST", "/f%253A%2524LATEST"),
        ("/a%2Fb", "/a%252Fb"),
        ("/%2e%2e/a", "/%252e%252e/a"),
        ("/a+b", "/a%2Bb"),
        ("/ü", "/%C3%BC"),
        ("/-._~", "/-._~"),
    ] {
        let encoded = canonical::encode_path(&canonical::normalise_path(path));
        assert_eq!(encoded, canonical, "{path}");
    }
}

#[test]
fn spaces_in_header_values_do_not_count_but_tabs_and_letters_do() {
    let parts = signed("GET", "/x", &[("x-amz-meta", "a b \"c d\"")], b"");
    let mut same = parts.clone();
    set(&mut same, "x-amz-meta", "  a  b   \"c  d\"  ");
    verify(&same, b"").expect("accepted");
    for value in ["a b \"cd\"", "A b \"c d\"", "a\tb \"c d\""] {
        let mut other = parts.clone();
        set(&mut other, "x-amz-meta", value);
        check_refused(verify(&other, b""), INVALID, NO_MATCH);
    }
}

#[test]
fn header_values_that_are_not_ascii_are_signed_byte_for_byte() {
    let mut parts = request("GET", "/x", &[]);
    for bytes in [&b"\xc3\xbc"[..], b"\xff\xfe"] {
        let value = HeaderValue::from_bytes(bytes).expect("valid");
        parts.headers.insert("x-amz-meta", value);
        sign(&mut parts, b"");
        verify(&parts, b"").expect("accepted");
    }
    parts
        .headers
        .insert("x-amz-meta", HeaderValue::from_static("?"));
    check_refused(verify(&parts, b""), INVALID, NO_MATCH);
}

#[test]
fn repeated_headers_are_signed_in_their_order() {
    let parts = signed(
        "GET",
        "/x",
        &[("x-amz-meta", "1"), ("x-amz-meta", "2")],
        b"",
    );
    verify(&parts, b"").expect("accepted");
    let mut joined = parts.clone();
    set(&mut joined, "x-amz-meta", "1,2");
    verify(&joined, b"").expect("the same, says RFC 9110");
    let mut turned = parts;
    set(&mut turned, "x-amz-meta", "2,1");
    check_refused(verify(&turned, b""), INVALID, NO_MATCH);
}

#[test]
fn headers_that_decide_must_not_be_repeated() {
    for name in [
        "authorization",
        "x-amz-date",
        "x-amz-content-sha256",
        "host",
    ] {
        let mut parts = request("GET", "/x", &[]);
        set(&mut parts, "x-amz-content-sha256", &PayloadHash::of(b"").0);
        sign(&mut parts, b"");
        verify(&parts, b"").expect("accepted before the change");
        let value = parts.headers[name].clone();
        parts.headers.append(name, value);
        let text = format!("Header '{name}' must not appear more than once.");
        check_refused(verify(&parts, b""), INCOMPLETE, &text);
    }
}

#[test]
fn host_and_all_amz_headers_must_be_signed() {
    let parts = signed("GET", "/x", &[], b"");
    let mut unsigned = parts.clone();
    let value = authorization(&parts).replace("host;", "");
    set(&mut unsigned, "authorization", &value);
    check_refused(
        verify(&unsigned, b""),
        INVALID,
        "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.",
    );

    let mut unsigned = parts.clone();
    let value = authorization(&parts).replace(";x-amz-date", "");
    set(&mut unsigned, "authorization", &value);
    check_refused(verify(&unsigned, b""), INVALID, "'x-amz-date' must be");

    let mut added = parts.clone();
    set(&mut added, "x-amz-invocation-type", "Event");
    check_refused(
        verify(&added, b""),
        INVALID,
        "'x-amz-invocation-type' must be a 'SignedHeader'",
    );

    // These are added on the way, and decide nothing.
    let mut added = parts;
    set(&mut added, "x-amzn-trace-id", "Root=1");
    set(&mut added, "accept", "*/*");
    verify(&added, b"").expect("accepted");
}

#[test]
fn a_signed_header_must_be_there() {
    let mut parts = signed("GET", "/x", &[("content-type", "a/b")], b"");
    parts.headers.remove("content-type");
    check_refused(
        verify(&parts, b""),
        INVALID,
        "'content-type' is a 'SignedHeader', but the request does not have it.",
    );
    let mut parts = signed("GET", "/x", &[], b"");
    parts.headers.remove(HOST);
    check_refused(verify(&parts, b""), INVALID, "'host' is a 'SignedHeader'");
}

#[test]
fn the_authority_of_http_2_counts_as_host() {
    let mut parts = signed("GET", "/x", &[("host", "box.local:7100")], b"");
    parts.headers.remove(HOST);
    parts.uri = "http://box.local:7100/x".parse().expect("valid");
    verify(&parts, b"").expect("accepted");
    parts.uri = "http://box.local:7101/x".parse().expect("valid");
    check_refused(verify(&parts, b""), INVALID, NO_MATCH);
}

#[test]
fn the_clock_may_be_off_by_five_minutes_and_no_second_more() {
    let parts = signed("GET", "/x", &[], b"");
    for seconds in [-300, -299, 0, 299, 300] {
        verify_at(&parts, b"", NOW + Duration::seconds(seconds))
            .unwrap_or_else(|error| panic!("{seconds}: {error}"));
    }
    check_refused(
        verify_at(&parts, b"", NOW + Duration::seconds(301)),
        INVALID,
        "Signature expired: 20261121T120000Z is now earlier than 20261121T120001Z \
         (20261121T120501Z - 5 min.)",
    );
    check_refused(
        verify_at(&parts, b"", NOW - Duration::seconds(301)),
        INVALID,
        "Signature not yet current: 20261121T120000Z is still later than 20261121T115959Z \
         (20261121T115459Z + 5 min.)",
    );
}

#[test]
fn our_clock_may_be_in_any_time_zone() {
    let parts = signed("GET", "/x", &[], b"");
    let tokyo = time::macros::offset!(+9);
    verify_at(&parts, b"", NOW.to_offset(tokyo)).expect("accepted");
}

#[test]
fn the_scope_is_of_the_day_that_was_signed() {
    let parts = signed("GET", "/x", &[], b"");
    let mut other = parts.clone();
    let value = authorization(&parts).replace("20261121/", "20261122/");
    set(&mut other, "authorization", &value);
    check_refused(
        verify(&other, b""),
        INVALID,
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from \
         HTTP: '20261122' != '20261121', from '20261121T120000Z'.",
    );
}

#[test]
fn only_the_services_that_are_allowed_are_accepted() {
    let mut parts = request("GET", "/x", &[]);
    let credentials = key();
    for service in ["sqs", "lambda"] {
        let signer = Signer {
            credentials: &credentials,
            region: "r",
            service,
        };
        let hash = PayloadHash::of(b"");
        signer
            .sign(&mut parts, &hash, NOW)
            .expect("there is a host");
        let verify = |services: &[&str]| {
            Verifier {
                keys: &[key()],
                services,
            }
            .verify(&RequestHead::from(&parts), &hash, NOW)
        };
        assert_eq!(
            verify(&["lambda", "sqs"]).expect("accepted").service,
            service
        );
        check_refused(
            verify(&["events"]),
            INVALID,
            "Credential should be scoped to correct service: 'events'.",
        );
    }
}

#[test]
fn any_region_is_accepted() {
    for region in ["us-east-1", "edge-1", "local", "x"] {
        let mut parts = request("GET", "/x", &[]);
        let credentials = key();
        let signer = Signer {
            credentials: &credentials,
            region,
            service: "lambda",
        };
        let hash = PayloadHash::of(b"");
        signer
            .sign(&mut parts, &hash, NOW)
            .expect("there is a host");
        assert_eq!(verify(&parts, b"").expect("accepted").region, region);
    }
}

#[test]
fn the_date_header_serves_where_there_is_no_x_amz_date() {
    let timestamp = "20261121T120000Z";
    for date in ["Sat, 21 Nov 2026 12:00:00 GMT", timestamp] {
        let mut parts = request("GET", "/x", &[("date", date)]);
        let names = ["date", "host"];
        let scope = Scope {
            date: "20261121",
            region: "r",
            service: "lambda",
        };
        let head = canonical::head(&RequestHead::from(&parts), &names).expect("all there");
        let text = string_to_sign(timestamp, scope, &head, &PayloadHash::of(b""));
        let value = format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders=date;host, Signature={}",
            key().access_key_id(),
            signature(&key(), scope, &text)
        );
        set(&mut parts, "authorization", &value);
        verify(&parts, b"").unwrap_or_else(|error| panic!("{date}: {error}"));

        // The second is a time in its own zone, but beyond the last one in UTC.
        for date in ["yesterday", "Fri, 31 Dec 9999 23:59:59 -1200"] {
            set(&mut parts, "date", date);
            check_refused(verify(&parts, b""), INCOMPLETE, "Got '");
        }
        parts.headers.remove("date");
        check_refused(
            verify(&parts, b""),
            INCOMPLETE,
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.",
        );
    }
}

#[test]
fn only_basic_iso_8601_is_a_time() {
    let parts = signed("GET", "/x", &[], b"");
    for date in [
        "",
        "2026-11-21T12:00:00Z",
        "20261121T120000",
        "20261121T120000z",
        "20261121 120000Z",
        "20261321T120000Z",
        "20261121T250000Z",
        "20261121T126000Z",
        "20261121T120060Z",
        "+2026121T120000Z",
        "-2026121T120000Z",
        "20261121T12000Z",
        "20261121T1200000Z",
        "Sat, 21 Nov 2026 12:00:00 GMT",
        "99999999T999999Z",
    ] {
        let mut parts = parts.clone();
        set(&mut parts, "x-amz-date", date);
        check_refused(
            verify(&parts, b""),
            INCOMPLETE,
            "Date must be in ISO-8601 'basic format'. Got '",
        );
    }
    for date in ["00000101T000000Z", "99991231T235959Z"] {
        let mut parts = parts.clone();
        set(&mut parts, "x-amz-date", date);
        let value = authorization(&parts).replace("20261121", &date[..8]);
        set(&mut parts, "authorization", &value);
        check_refused(verify(&parts, b""), INVALID, "Signature ");
    }
}

#[test]
fn the_body_must_be_the_one_that_is_declared() {
    let hash = PayloadHash::of(b"{}").0;
    let parts = signed("POST", "/x", &[("x-amz-content-sha256", &hash)], b"{}");
    verify(&parts, b"{}").expect("accepted");
    check_refused(
        verify(&parts, b"{ }"),
        INVALID,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    );
}

#[test]
fn an_unsigned_payload_is_refused_even_if_the_signature_says_so() {
    for literal in [
        "UNSIGNED-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    ] {
        let mut parts = request("POST", "/x", &[("x-amz-content-sha256", literal)]);
        let credentials = key();
        let signer = Signer {
            credentials: &credentials,
            region: "r",
            service: "lambda",
        };
        let payload = PayloadHash(literal.to_owned());
        signer
            .sign(&mut parts, &payload, NOW)
            .expect("there is a host");
        check_refused(verify(&parts, b"{}"), INVALID, literal);
    }
}

#[test]
fn an_unsigned_request_is_told_so() {
    check_refused(
        verify(&request("GET", "/x", &[]), b""),
        MISSING,
        "Missing Authentication Token",
    );
}

#[test]
fn a_presigned_url_is_refused() {
    for target in [
        "/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=k",
        "/x?a=1&X-Amz-Signature=abc",
        "/x?X%2DAmz%2DSignature",
    ] {
        let text = "Presigned URLs are not accepted";
        check_refused(verify(&request("GET", target, &[]), b""), MISSING, text);
        // Also if the header is there too: which of the two counts must not be a question.
        check_refused(verify(&signed("GET", target, &[], b""), b""), MISSING, text);
    }
}

#[test]
fn an_unknown_key_and_a_session_token_are_unrecognised_clients() {
    let parts = signed("GET", "/x", &[], b"");
    let mut other = parts.clone();
    let value = authorization(&parts).replace("DUNLINEXAMPLEKEY2345", "AKIDEXAMPLE");
    set(&mut other, "authorization", &value);
    let text = "The security token included in the request is invalid.";
    check_refused(verify(&other, b""), UNRECOGNIZED, text);

    let parts = signed("GET", "/x", &[("x-amz-security-token", "t")], b"");
    check_refused(verify(&parts, b""), UNRECOGNIZED, "unset AWS_SESSION_TOKEN");
    let mut parts = signed("GET", "/x", &[], b"");
    set(&mut parts, "x-amz-security-token", "t");
    check_refused(verify(&parts, b""), UNRECOGNIZED, text);
}

#[test]
fn a_wrong_secret_does_not_match() {
    let keys = [
        Credentials::new(
            "DUNLINOTHERKEY234567",
            "another-secret-of-forty-characters-1234",
        )
        .expect("valid"),
        Credentials::new(
            "DUNLINEXAMPLEKEY2345",
            "another-secret-of-forty-characters-1234",
        )
        .expect("valid"),
    ];
    let parts = signed("GET", "/x", &[], b"");
    let verifier = Verifier {
        keys: &keys,
        services: &["lambda"],
    };
    let result = verifier.verify(&RequestHead::from(&parts), &PayloadHash::of(b""), NOW);
    check_refused(result, INVALID, NO_MATCH);
}

#[test]
fn strangers_are_refused_before_the_body_is_read() {
    let verifier = Verifier {
        keys: &[],
        services: &["lambda"],
    };
    let parts = signed("POST", "/x", &[], b"{}");
    let error = verifier
        .check_head(&RequestHead::from(&parts), NOW)
        .err()
        .expect("the key is not known");
    assert_eq!(error.code(), "UnrecognizedClientException");
}

#[test]
fn a_malformed_authorization_header_is_incomplete() {
    let good = authorization(&signed("GET", "/x", &[], b""));
    let credential = "Credential=DUNLINEXAMPLEKEY2345/20261121/edge-1/lambda/aws4_request";
    let headers = "SignedHeaders=host;x-amz-date";
    let digits = "0".repeat(64);
    let with = |credential: &str, headers: &str, signature: &str| {
        format!("AWS4-HMAC-SHA256 {credential}, {headers}, Signature={signature}")
    };
    let cases: Vec<(String, &str)> = vec![
        ("".into(), "Unsupported AWS 'algorithm'"),
        ("Bearer secret-token".into(), "Unsupported AWS 'algorithm'"),
        ("Basic c2VjcmV0OnNlY3JldA==".into(), "Unsupported AWS"),
        (good.replace("SHA256", "SHA512"), "Unsupported AWS"),
        (good.replace("AWS4-HMAC", "AWS4-ECDSA-P256"), "Unsupported"),
        (good.to_lowercase(), "Unsupported AWS 'algorithm'"),
        ("AWS4-HMAC-SHA256".into(), "list of name=value"),
        ("AWS4-HMAC-SHA256 ,".into(), "list of name=value"),
        (format!("{good},"), "list of name=value"),
        (
            format!("{good}, Signature={digits}"),
            "more than one 'Signature'",
        ),
        (format!("{good}, More=x"), "unknown parameter"),
        (
            "AWS4-HMAC-SHA256 Signature=x".into(),
            "Authorization header requires 'Credential' parameter. Authorization header requires \
             'SignedHeaders' parameter.",
        ),
        (
            format!("AWS4-HMAC-SHA256 {credential}, {headers}"),
            "Authorization header requires 'Signature' parameter.",
        ),
        (with("Credential=", headers, &digits), "exactly 5"),
        (with("Credential=k/d/r/s", headers, &digits), "exactly 5"),
        (
            with(&format!("{credential}/x"), headers, &digits),
            "exactly 5",
        ),
        (
            with(
                "Credential=k/20261121/r/lambda/aws5_request",
                headers,
                &digits,
            ),
            "valid terminator",
        ),
        (
            with(
                "Credential=k/2026112/r/lambda/aws4_request",
                headers,
                &digits,
            ),
            "must be YYYYMMDD",
        ),
        (
            with(
                "Credential=k/2026112x/r/lambda/aws4_request",
                headers,
                &digits,
            ),
            "must be YYYYMMDD",
        ),
        (
            with(
                "Credential=/20261121/r/lambda/aws4_request",
                headers,
                &digits,
            ),
            "malformed access key id",
        ),
        (
            with(
                "Credential=k k/20261121/r/lambda/aws4_request",
                headers,
                &digits,
            ),
            "malformed access key id",
        ),
        (
            with(
                "Credential=k/20261121//lambda/aws4_request",
                headers,
                &digits,
            ),
            "malformed region",
        ),
        (
            with("Credential=k/20261121/r//aws4_request", headers, &digits),
            "malformed service",
        ),
        (
            with(credential, "SignedHeaders=", &digits),
            "alphabetical order",
        ),
        (
            with(credential, "SignedHeaders=host;", &digits),
            "alphabetical order",
        ),
        (
            with(credential, "SignedHeaders=x-amz-date;host", &digits),
            "alphabetical order",
        ),
        (
            with(credential, "SignedHeaders=host;host", &digits),
            "alphabetical order",
        ),
        (
            with(credential, "SignedHeaders=Host;x-amz-date", &digits),
            "alphabetical order",
        ),
        (with(credential, headers, ""), "64 lower-case hexadecimal"),
        (
            with(credential, headers, &digits[1..]),
            "64 lower-case hexadecimal",
        ),
        (
            with(credential, headers, &"A".repeat(64)),
            "64 lower-case hexadecimal",
        ),
        (
            with(credential, headers, &"g".repeat(64)),
            "64 lower-case hexadecimal",
        ),
        (format!("{good}é"), "must be printable ASCII"),
    ];
    for (value, text) in cases {
        let mut parts = signed("GET", "/x", &[], b"");
        let header = HeaderValue::from_bytes(value.as_bytes()).expect("valid");
        parts.headers.insert(AUTHORIZATION, header);
        let result = verify(&parts, b"");
        if let Err(error) = &result {
            let shown = format!("{error:?} {error} {}", error.message());
            assert!(
                !shown.contains("secret") && !shown.contains("c2VjcmV0"),
                "{shown}"
            );
        }
        check_refused(result, INCOMPLETE, text);
    }
}

#[test]
fn parameters_may_come_in_any_order_and_spacing() {
    let parts = signed("GET", "/x", &[], b"");
    let value = authorization(&parts);
    let mut parameters: Vec<&str> = value[ALGORITHM.len() + 1..].split(", ").collect();
    for separator in [",", ", ", " ,\t"] {
        parameters.rotate_left(1);
        let mut parts = parts.clone();
        let value = format!("{ALGORITHM}  {}", parameters.join(separator));
        set(&mut parts, "authorization", &value);
        verify(&parts, b"").unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

#[test]
fn everything_is_bounded() {
    let parts = signed("GET", "/x", &[], b"");

    let mut long = parts.clone();
    let value = format!(
        "{}{}",
        authorization(&parts),
        " ".repeat(MAX_AUTHORIZATION_BYTES)
    );
    set(&mut long, "authorization", &value);
    check_refused(verify(&long, b""), TOO_LARGE, "Authorization header of ");

    let mut target = "/".repeat(MAX_TARGET_BYTES);
    let mut long = signed("GET", &target, &[], b"");
    verify(&long, b"").expect("at the limit");
    target.push('/');
    long.uri = target.parse().expect("valid");
    check_refused(
        verify(&long, b""),
        TOO_LARGE,
        "path and query of 32769 is over the limit of 32768",
    );

    let mut many = request("GET", "/x", &[]);
    // With host and x-amz-date.
    for index in 0..MAX_SIGNED_HEADERS - 2 {
        let name = HeaderName::try_from(format!("x-{index}")).expect("valid");
        many.headers.insert(name, HeaderValue::from_static("1"));
    }
    sign(&mut many, b"");
    verify(&many, b"").expect("at the limit");
    many.headers.insert("x-more", HeaderValue::from_static("1"));
    sign(&mut many, b"");
    check_refused(
        verify(&many, b""),
        TOO_LARGE,
        "number of signed headers of 65 is over the limit of 64",
    );

    let mut long = parts.clone();
    set(&mut long, "x-amz-meta", "a");
    sign(&mut long, b"");
    set(
        &mut long,
        "x-amz-meta",
        &"a".repeat(MAX_SIGNED_HEADER_BYTES),
    );
    check_refused(verify(&long, b""), TOO_LARGE, "signed headers of ");

    for part in ["DUNLINEXAMPLEKEY2345", "edge-1", "lambda"] {
        let mut long = parts.clone();
        let value = authorization(&parts).replacen(part, &"a".repeat(129), 1);
        set(&mut long, "authorization", &value);
        check_refused(
            verify(&long, b""),
            TOO_LARGE,
            "of 129 is over the limit of 128",
        );
    }
}

/// Mutated headers: no panic, and none accepted unless it says the same as the original.
#[test]
fn mutated_headers_never_panic_and_never_pass() {
    const ROUNDS: usize = 20_000;
    let parts = signed("POST", INVOKE, &[("x-amz-log-type", "Tail")], b"{}");
    let original = authorization(&parts);
    let wanted = Authorization::parse(&original).expect("well formed");
    let mut random = Random(0x5167_7634);
    let mut refusals = std::collections::BTreeMap::<&str, usize>::new();
    for round in 0..ROUNDS {
        let name = ["authorization", "authorization", "x-amz-date", "host"][round % 4];
        let original_value = &parts.headers[name];
        let mut bytes = original_value.as_bytes().to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(bytes.len() + 1);
            let to = at + random.below(bytes.len() + 1 - at);
            match random.below(6) {
                0 if at < bytes.len() => bytes[at] = random.next() as u8,
                1 => bytes.insert(
                    at,
                    *random
                        .pick(&[b" ", b",", b"=", b"/", b";", b"\xff"])
                        .first()
                        .expect("one byte"),
                ),
                2 => drop(bytes.drain(at..to)),
                3 => bytes.truncate(at),
                4 => bytes.extend_from_within(at..to),
                _ if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                _ => {}
            }
        }
        let Ok(value) = HeaderValue::from_bytes(&bytes) else {
            continue;
        };
        let mut mutated = parts.clone();
        mutated.headers.insert(name, value);
        match verify(&mutated, b"{}") {
            Ok(_) if name == "authorization" => {
                let text = std::str::from_utf8(&bytes).expect("accepted, so ASCII");
                assert_eq!(Authorization::parse(text).as_ref(), Ok(&wanted));
            }
            // Spaces around a value are the only change that may pass.
            Ok(_) => assert_eq!(bytes.trim_ascii(), original_value.as_bytes()),
            Err(error) => *refusals.entry(error.code()).or_default() += 1,
        }
    }
    // The loop must have reached the depths, not only the first check.
    for code in [
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "UnrecognizedClientException",
    ] {
        assert!(refusals.get(code).is_some_and(|&n| n > 100), "{refusals:?}");
    }
}

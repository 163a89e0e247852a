//! Requests that are none, or that two servers could read in two ways. Each is
//! refused, its connection closed, and nobody else notices.

use super::wire::{Wire, get, is_end};
use super::{PROBE, up};

/// What the host may do with bytes.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// Answer one of these, and close.
    Refused(&'static [u16]),
    /// Serve it.
    Served,
    /// Refuse it, or serve it and close: what RFC 9112 section 6.1 leaves open.
    RefusedOrLast,
}

use Expect::{Refused, RefusedOrLast, Served};

const BAD: Expect = Refused(&[400]);

#[track_caller]
fn check(table: &[(&str, &[u8], Expect)]) {
    let host = up(PROBE);
    let mut failed = Vec::new();
    for (name, bytes, expect) in table {
        let mut wire = Wire::connect(host.http.address());
        wire.send(bytes);
        // Should bytes be left over, this would be read as a second request.
        let answer = match wire.next(true) {
            Ok(answer) => answer,
            Err(error) => {
                failed.push(format!("{name}: no answer, but {error}"));
                continue;
            }
        };
        let closed = || {
            let mut wire = wire;
            matches!(wire.next(true), Err(error) if is_end(&error))
        };
        let right = match expect {
            Refused(statuses) => statuses.contains(&answer.status) && closed(),
            Served => answer.status == 200,
            RefusedOrLast => matches!(answer.status, 400 | 200) && closed(),
        };
        if !right {
            failed.push(format!(
                "{name}: expected {expect:?}, got {} {}",
                answer.status,
                answer.text()
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(get(host.http.address(), "/probe").status, 200);
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
    host.wait_until_quiet();
}

#[test]
fn request_lines() {
    check(&[
        (
            "an empty line before",
            b"\r\nGET /probe HTTP/1.1\r\nhost: a\r\n\r\n",
            Served,
        ),
        ("no version", b"GET /probe\r\nhost: a\r\n\r\n", BAD),
        ("no target", b"GET HTTP/1.1\r\nhost: a\r\n\r\n", BAD),
        (
            "a blank in the target",
            b"GET /pro be HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        (
            "a method with a slash",
            b"GE/T /probe HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        (
            "a control character",
            b"GET /pr\x01obe HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        ("a NUL", b"GET /pr\0obe HTTP/1.1\r\nhost: a\r\n\r\n", BAD),
        (
            "an unknown version",
            b"GET /probe HTTP/3.1\r\nhost: a\r\n\r\n",
            Refused(&[400, 505]),
        ),
        (
            "HTTP/2 in a line of HTTP/1",
            b"GET /probe HTTP/2.0\r\nhost: a\r\n\r\n",
            Refused(&[400, 505]),
        ),
        ("no path", b"GET probe HTTP/1.1\r\nhost: a\r\n\r\n", BAD),
        (
            "no HTTP at all",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            BAD,
        ),
    ]);
}

#[test]
fn request_targets_that_are_no_path() {
    check(&[
        (
            "asterisk-form of another method",
            b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        (
            "asterisk-form: no function is the whole server",
            b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
            BAD,
        ),
        (
            "authority-form: the host is no proxy",
            b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
            BAD,
        ),
        (
            "absolute-form",
            b"GET http://a/probe HTTP/1.1\r\nhost: a\r\n\r\n",
            Served,
        ),
        (
            "a fragment is left out",
            b"GET /probe#part HTTP/1.1\r\nhost: a\r\n\r\n",
            Served,
        ),
    ]);
}

#[test]
fn host_headers() {
    check(&[
        ("missing", b"GET /probe HTTP/1.1\r\n\r\n", BAD),
        (
            "missing, in absolute form",
            b"GET http://a/probe HTTP/1.1\r\n\r\n",
            BAD,
        ),
        (
            "twice",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            BAD,
        ),
        (
            "twice the same",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            BAD,
        ),
        (
            "twice, in absolute form",
            b"GET http://a/probe HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
            BAD,
        ),
        ("a list", b"GET /probe HTTP/1.1\r\nhost: a, b\r\n\r\n", BAD),
        ("a path", b"GET /probe HTTP/1.1\r\nhost: a/b\r\n\r\n", BAD),
        ("a user", b"GET /probe HTTP/1.1\r\nhost: me@a\r\n\r\n", BAD),
        (
            "no text",
            b"GET /probe HTTP/1.1\r\nhost: \xff\xfe\r\n\r\n",
            BAD,
        ),
        (
            "a port",
            b"GET /probe HTTP/1.1\r\nhost: a:80\r\n\r\n",
            Served,
        ),
        (
            "IPv6",
            b"GET /probe HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
            Served,
        ),
    ]);
}

#[test]
fn header_lines() {
    check(&[
        (
            "no colon",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nnonsense\r\n\r\n",
            BAD,
        ),
        (
            "no name",
            b"GET /probe HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
            BAD,
        ),
        (
            "a blank before the colon",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n",
            BAD,
        ),
        (
            "a blank in the name",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx a: b\r\n\r\n",
            BAD,
        ),
        (
            "a blank before the first",
            b"GET /probe HTTP/1.1\r\n host: a\r\n\r\n",
            BAD,
        ),
        (
            "folded",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a: b\r\n c\r\n\r\n",
            BAD,
        ),
        (
            "folded with a tab",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a: b\r\n\tc\r\n\r\n",
            BAD,
        ),
        (
            "a NUL in the value",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n",
            BAD,
        ),
        (
            "a carriage return in the value",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a: b\rc: d\r\n\r\n",
            BAD,
        ),
        (
            "a NUL in the name",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx\0a: b\r\n\r\n",
            BAD,
        ),
        (
            "an empty value",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a:\r\n\r\n",
            Served,
        ),
        (
            "bytes above ASCII",
            b"GET /probe HTTP/1.1\r\nhost: a\r\nx-a: caf\xc3\xa9\xff\r\n\r\n",
            Served,
        ),
    ]);
}

#[test]
fn lengths() {
    check(&[
        ("a sign", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\nhello", BAD),
        ("negative", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\nhello", BAD),
        ("hexadecimal", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 0x5\r\n\r\nhello", BAD),
        ("a fraction", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5.0\r\n\r\nhello", BAD),
        ("empty", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\nhello", BAD),
        ("blanks within", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5 5\r\n\r\nhello", BAD),
        ("a list", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5, 6\r\n\r\nhello", BAD),
        ("beyond 64 bits", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551621\r\n\r\nhello", BAD),
        (
            "two that differ",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            BAD,
        ),
        ("one", b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", Served),
    ]);
}

#[test]
fn length_and_chunks_at_once_never_leave_a_second_request() {
    // Where servers differ, one behind another could be made to see a request
    // that the first one did not.
    check(&[
        (
            "the length first",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /probe?smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            RefusedOrLast,
        ),
        (
            "the chunks first",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n\
              0\r\n\r\nGET /probe?smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            RefusedOrLast,
        ),
    ]);
}

#[test]
fn transfer_codings() {
    check(&[
        (
            "unknown",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
            Refused(&[400, 501]),
        ),
        (
            "identity",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\nx",
            Refused(&[400, 501]),
        ),
        (
            "chunked not last",
            b"POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
            Refused(&[400, 501]),
        ),
        (
            "in HTTP/1.0",
            b"POST /probe HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
        ),
    ]);
}

#[test]
fn chunks() {
    const HEAD: &str = "POST /probe HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    let table: [(&str, &str, Expect); 8] = [
        ("a size that is none", "zz\r\nhello\r\n0\r\n\r\n", BAD),
        ("no size", "\r\nhello\r\n0\r\n\r\n", BAD),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n", BAD),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n", BAD),
        (
            "a size beyond 64 bits",
            "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
            BAD,
        ),
        ("more than its size", "2\r\nhello\r\n0\r\n\r\n", BAD),
        ("upper case", "A\r\n0123456789\r\n0\r\n\r\n", Served),
        ("leading zeros", "0005\r\nhello\r\n0\r\n\r\n", Served),
    ];
    let owned: Vec<(&str, Vec<u8>, Expect)> = table
        .into_iter()
        .map(|(name, body, expect)| (name, format!("{HEAD}{body}").into_bytes(), expect))
        .collect();
    let borrowed: Vec<(&str, &[u8], Expect)> = owned
        .iter()
        .map(|(name, bytes, expect)| (*name, bytes.as_slice(), *expect))
        .collect();
    check(&borrowed);
}

#[test]
fn a_body_that_breaks_off_runs_nothing() {
    let host = up(PROBE);
    for body in [
        "content-length: 10\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhel",
    ] {
        let mut wire = Wire::connect(host.http.address());
        wire.send(format!("POST /probe HTTP/1.1\r\nhost: a\r\n{body}"));
        wire.half_close();
        // An answer is a courtesy, the end is not.
        match wire.next(true) {
            Ok(answer) => {
                assert_eq!(answer.status, 400, "{body:?}");
                wire.closed();
            }
            Err(error) => assert!(is_end(&error), "{error}"),
        }
    }
    host.wait_for_metric("dunlin_http_connections", &[], |open| open == 0.0);
    assert_eq!(host.metric("dunlin_invocations_total", &[]), Some(0.0));
}

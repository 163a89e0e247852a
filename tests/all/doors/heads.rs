//! What goes over the wire: heads, framing, trailers, and connections that go on.

use bytes::Bytes;
use dunlin_tests::{Host, eventually};
use http::{HeaderMap, Request};

use super::exchange::{End, Exchange, chunk};
use super::{DOORS, both};
use crate::http::h2c;

fn up() -> Host {
    both("timeout = \"20s\"\nfuel = \"off\"").start()
}

#[test]
fn a_handler_sees_the_request_without_what_concerns_its_connection() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/request?x=1&y HTTP/1.1\r\nhost: Box.test:8080\r\n\
             connection: keep-alive, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\nte: trailers\r\n\
             proxy-connection: close\r\nx-own: a\r\nx-own: b\r\ncontent-length: 2\r\n\r\nhi"
        ));
        let answer = exchange.answer();
        let expected = format!(
            "Post Some(Http) Some(\"box.test:8080\") Some(\"/{function}/request?x=1&y\")\n\
             content-length: 2\nx-own: a\nx-own: b"
        );
        let seen = answer.text().replace("Method::Post", "Post");
        let seen = seen.replace("Some(Scheme::Http)", "Some(Http)");
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_answer_that_is_there_at_once_has_a_length_and_one_that_is_not_comes_in_chunks() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        // A guest that has to give way to another does not have it at once.
        eventually("it is there at once", || {
            let whole = exchange.get(&format!("/{function}/pieces?count=3&size=4"));
            assert_eq!((whole.text(), whole.is_whole()), ("xxxxxxxxxxxx", true));
            let length = whole.header("content-length")?;
            assert_eq!((length, whole.header("transfer-encoding")), ("12", None));
            Some(())
        });
        // On the same connection, before and after.
        for _ in 0..2 {
            let target = format!("/{function}/pieces?count=3&size=4&pause=50");
            let streamed = exchange.get(&target);
            assert_eq!(streamed.header("transfer-encoding"), Some("chunked"));
            assert_eq!(
                (streamed.text(), &streamed.end),
                ("xxxxxxxxxxxx", &End::Whole(Vec::new()))
            );
            assert!(streamed.header("x-amzn-requestid").is_some());
        }
    }
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(2.0));
}

#[test]
fn an_answer_in_pieces_whose_length_is_announced_is_whole_with_its_last_byte() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        let target = format!("/{function}/pieces?count=3&size=4&pause=50&length=12");
        for _ in 0..2 {
            let answer = exchange.get(&target);
            assert_eq!(answer.header("content-length"), Some("12"));
            assert_eq!((answer.text(), answer.is_whole()), ("xxxxxxxxxxxx", true));
            let record = host.record(answer.header("x-amzn-requestid").unwrap());
            assert_eq!(record["outcome"], "ok", "{record}");
        }
    }
}

/// Whether that is how long an answer says it would be. One that is written, and was not
/// there at once because its guest had to give way to another, says nothing.
fn is_length(own: Option<&str>, expected: Option<&str>) -> bool {
    own == expected || (own.is_none() && expected == Some("12"))
}

#[test]
fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        for (what, length) in [
            ("pieces?count=3&size=4", Some("12")),
            ("pieces?count=3&size=4&pause=50", None),
            ("length?length=1000", Some("1000")),
        ] {
            exchange.ask("HEAD", &format!("/{function}/{what}"));
            let answer = exchange.answer_to("HEAD");
            assert_eq!(answer.status, 200, "{what}");
            let own = answer.header("content-length");
            assert!(is_length(own, length), "{what}: {own:?}");
        }
        for code in [204, 304] {
            let answer = exchange.get(&format!("/{function}/status?code={code}"));
            assert_eq!((answer.status, answer.text()), (code, ""));
            assert_eq!(answer.header("transfer-encoding"), None);
        }
        assert_eq!(exchange.get(&format!("/{function}/ok")).text(), "ok");
    }
    host.wait_until_quiet();
    let ok = host.metric("dunlin_invocations_total", &[("outcome", "ok")]);
    assert_eq!(ok, Some(12.0), "also those whose bodies nobody got");
    assert_eq!(host.metric("dunlin_http_accepted_total", &[]), Some(2.0));
}

#[test]
fn over_http2_they_have_none_either() {
    let host = up();
    h2c::run(async {
        let mut connection = h2c::Connection::open(&host).await;
        for function in DOORS {
            for (method, what, status, length) in [
                ("HEAD", "pieces?count=3&size=4", 200, Some("12")),
                ("HEAD", "pieces?count=3&size=4&pause=50", 200, None),
                ("HEAD", "length?length=1000", 200, Some("1000")),
                ("GET", "status?code=204", 204, None),
                ("GET", "status?code=304", 304, None),
            ] {
                let target = format!("/{function}/{what}");
                let (parts, body) = connection.send(method, &target, b"").await.unwrap();
                assert_eq!((parts.status.as_u16(), body.len()), (status, 0), "{target}");
                let own = parts.headers.get("content-length");
                let own = own.map(|value| value.to_str().unwrap());
                assert!(is_length(own, length), "{method} {target}: {own:?}");
            }
        }
    });
    host.wait_until_quiet();
    let ok = host.metric("dunlin_invocations_total", &[("outcome", "ok")]);
    assert_eq!(ok, Some(10.0));
}

#[test]
fn a_client_of_http_1_0_knows_a_whole_answer_from_half_of_one() {
    let host = up();
    for function in DOORS {
        let mut whole = Exchange::open(&host);
        whole.send(format!(
            "GET /{function}/pieces?count=3&size=4&pause=50 HTTP/1.0\r\n\r\n"
        ));
        let answer = whole.answer();
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!((answer.text(), answer.is_whole()), ("xxxxxxxxxxxx", true));

        let mut half = Exchange::open(&host);
        half.send(format!(
            "GET /{function}/panics-late?size=4&count=1&pause=200 HTTP/1.0\r\n\r\n"
        ));
        let answer = half.answer();
        assert_eq!(
            (answer.status, answer.text(), &answer.end),
            (200, "xxxx", &End::Broken),
            "{function}: a reset"
        );
    }
}

#[test]
fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let host = up();
    for target in ["web02/echo", "web02/count", "web03/copy", "web03/count"] {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        ));
        let expects_answer = if target.ends_with("count") {
            assert_eq!(exchange.any_head().0, 100, "{target}");
            "5"
        } else {
            "hello"
        };
        exchange.send("hello");
        assert_eq!(exchange.answer().text(), expects_answer, "{target}");
    }
}

#[test]
fn requests_that_are_sent_together_are_answered_in_turn() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        let get = |what| format!("GET /{function}/{what} HTTP/1.1\r\nhost: a\r\n\r\n");
        let all = [
            get("pieces?count=3&size=4&pause=50"),
            get("ok"),
            get("pieces?count=2&size=4&pause=50"),
        ];
        exchange.send(all.concat());
        for expected in ["xxxxxxxxxxxx", "ok", "xxxxxxxx"] {
            let answer = exchange.answer();
            assert_eq!((answer.text(), answer.is_whole()), (expected, true));
        }
    }
}

#[test]
fn a_client_that_is_done_sending_gets_the_whole_answer_and_nothing_between() {
    let host = up();
    for function in DOORS {
        for early in [true, false] {
            let mut exchange = Exchange::open(&host);
            exchange.ask(
                "GET",
                &format!("/{function}/pieces?count=8&size=4&pause=60"),
            );
            if early {
                exchange.half_close();
            }
            assert_eq!(exchange.head().0, 200);
            exchange.half_close();
            // An interim response in between would be no chunk.
            let (body, end) = exchange.rest();
            assert_eq!(
                (body.len(), end),
                (32, End::Whole(Vec::new())),
                "{function}"
            );
            exchange.closed();
        }
    }
}

#[test]
fn a_body_that_is_not_read_does_not_stand_in_the_way_of_its_answer() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        exchange.send(format!(
            "POST /{function}/ok HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n"
        ));
        exchange.send(vec![b'x'; 3_000_000]);
        let answer = exchange.answer();
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
}

/// Trailers as a client sends them: one that may be one, and some that may not.
const SENT: &str = "0\r\nx-last: seen\r\ncontent-type: text/html\r\nhost: evil\r\n\r\n";

#[test]
fn trailers_go_both_ways_over_http1() {
    let host = up();
    for function in DOORS {
        let mut exchange = Exchange::open(&host);
        let head = |te: &str| {
            format!(
                "POST /{function}/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\
                 trailer: x-last\r\n{te}\r\n"
            )
        };
        let last = [("x-last".to_owned(), "seen".to_owned())];
        exchange.send(head("te: trailers\r\n"));
        exchange.send([&chunk(b"body"), SENT.as_bytes()].concat());
        let answer = exchange.answer();
        assert_eq!(answer.header("trailer"), Some("x-last"));
        assert_eq!(
            (answer.text(), &answer.end),
            ("body", &End::Whole(last.into()))
        );
        // Who does not ask for them gets none.
        exchange.send(head(""));
        exchange.send([&chunk(b"body"), SENT.as_bytes()].concat());
        let answer = exchange.answer();
        assert_eq!(
            (answer.text(), &answer.end),
            ("body", &End::Whole(Vec::new()))
        );
    }
}

#[test]
fn trailers_go_both_ways_over_http2() {
    let host = up();
    h2c::run(async {
        let mut connection = h2c::Connection::open(&host).await;
        for function in DOORS {
            let request = Request::post(format!("http://box.test/{function}/echo"));
            let request = request.body(()).unwrap();
            let (response, mut to) = connection.requests.send_request(request, false).unwrap();
            to.send_data(Bytes::from_static(b"body"), false).unwrap();
            let mut trailers = HeaderMap::new();
            for (name, value) in [
                ("x-last", "seen"),
                ("x-last", "twice"),
                ("content-type", "text/html"),
                ("x-dunlin-outcome", "ok"),
            ] {
                trailers.append(name, value.parse().unwrap());
            }
            to.send_trailers(trailers).unwrap();
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert_eq!(parts.status, 200);
            let piece = body.data().await.unwrap().unwrap();
            assert_eq!(piece, "body");
            while body.data().await.is_some() {}
            let back = body.trailers().await.unwrap().unwrap();
            let back: Vec<_> = back
                .iter()
                .map(|(name, value)| (name.as_str(), value))
                .collect();
            assert_eq!(
                back,
                [
                    ("x-last", &"seen".parse().unwrap()),
                    ("x-last", &"twice".parse().unwrap())
                ],
                "{function}"
            );
        }
    });
}

#[test]
fn trailers_of_a_handler_come_after_its_body_without_those_that_may_not() {
    let host = up();
    for function in DOORS {
        let (parts, trailers) = h2c::run(async {
            let mut connection = h2c::Connection::open(&host).await;
            let request = Request::get(format!("http://box.test/{function}/trailers"));
            let request = request.body(()).unwrap();
            let (response, _) = connection.requests.send_request(request, true).unwrap();
            let (parts, mut body) = response.await.unwrap().into_parts();
            while body.data().await.is_some() {}
            (parts, body.trailers().await.unwrap().unwrap())
        });
        assert_eq!(parts.headers["trailer"], "x-last");
        assert_eq!(trailers["x-last"], "seen");
        assert!(!trailers.contains_key("content-encoding"), "{function}");
    }
}

//! Answers that no client may be sent.

use dunlin_tests::Host;

use super::hostile;
use crate::scene::{Scene, TOO_LARGE, invalid, trap};
use crate::wat::{REALLOC, http_component};

const MIB: usize = 1 << 20;

#[test]
fn an_answer_over_the_limit_is_a_502() {
    let scene = Scene::new(hostile(""));
    let most = scene.host.get(&format!("/hostile/large?n={}", 6 * MIB));
    assert_eq!((most.status, most.body.len()), (200, 6 * MIB));
    // A little over, and so far over that it is not even read.
    for size in [6 * MIB + 1, 7 * MIB, 40 * MIB] {
        scene.ends(&format!("/hostile/large?n={size}"), &TOO_LARGE);
    }
    scene.ends(&format!("/hostile/large-header?n={}", 7 * MIB), &TOO_LARGE);
    scene.end();
}

#[test]
fn too_many_headers_are_a_502() {
    let scene = Scene::new(hostile(""));
    let many = scene.host.get("/hostile/headers?n=1000");
    assert_eq!((many.status, many.header("x-999")), (200, Some("value")));
    scene.ends("/hostile/headers?n=33000", &invalid("too many headers"));
    scene.end();
}

#[test]
fn a_status_that_ends_no_request_is_a_502() {
    let scene = Scene::new(hostile(""));
    for status in [0, 99, 100, 101, 199, 600, 999, 1000, 65535] {
        scene.ends(
            &format!("/hostile/status?n={status}"),
            &invalid("200 to 599"),
        );
    }
    for status in [200, 204, 304, 418, 500, 599] {
        assert_eq!(
            scene
                .host
                .get(&format!("/hostile/status?n={status}"))
                .status,
            status
        );
    }
    scene.end();
}

#[test]
fn a_header_that_is_none_is_a_502() {
    let scene = Scene::new(hostile(""));
    for name in ["", "two%20words", "a:b", "a%0d%0ab", "%C3%A4", "a%00"] {
        scene.ends(
            &format!("/hostile/header-name?text={name}"),
            &invalid("no name of a header"),
        );
    }
    for value in [
        "a%0D%0Aset-cookie:%20own=1",
        "a%0Ab",
        "a%0Db",
        "a%00b",
        "%7F",
    ] {
        scene.ends(
            &format!("/hostile/header-value?text={value}"),
            &invalid("bytes that HTTP does not allow"),
        );
    }
    // Bytes above ASCII are opaque, and allowed.
    assert_eq!(scene.host.get("/hostile/header-bytes?n=255").status, 200);
    scene.end();
}

#[test]
fn headers_that_frame_the_message_are_the_hosts() {
    let scene = Scene::new(hostile(""));
    // A client that was told another length would wait, or see a second answer.
    let mut connection = scene.host.http.connect();
    for _ in 0..2 {
        let response = connection.request("GET", "/hostile/framing", &[], b"");
        assert_eq!(response.text(), "framed");
        assert_eq!(response.header("content-length"), Some("6"));
        assert_eq!(response.header("x-mine"), Some("stays"));
        let forbidden = [
            "transfer-encoding",
            "keep-alive",
            "te",
            "trailer",
            "upgrade",
            "proxy-connection",
            "connection",
        ];
        for name in forbidden {
            assert_eq!(response.header(name), None, "{name}: {response:?}");
        }
    }
    scene.end();
}

#[test]
fn a_guest_cannot_forge_what_the_host_says() {
    let scene = Scene::new(hostile(""));
    let response = scene.host.get("/hostile/names-of-the-host");
    assert_eq!(response.status, 200);
    let ids: Vec<_> = response
        .headers
        .iter()
        .filter(|(name, _)| name == "x-amzn-requestid")
        .collect();
    assert_eq!(ids.len(), 1, "{response:?}");
    assert_ne!(ids[0].1, "forged");
    scene.host.record(response.request_id());
    // "On every answer that the handler did not make": on no other.
    assert_eq!(response.outcome(), None, "{response:?}");
    scene.end();
}

/// A guest that answers with this record at address 16: status, headers and
/// body as pointers and lengths.
fn answering(
    prepare: &str,
    [headers, header_count, body, body_length]: [u32; 4],
) -> std::path::PathBuf {
    let plain =
        |address: u32, value: u32| format!("(i32.store (i32.const {address}) (i32.const {value}))");
    // `NAME/ok` is longer than `NAME`.
    http_component(&format!(
        r#"(memory (export "memory") 40) {REALLOC}
        (func (export "handle") (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (local $n i32)
            (i32.store16 (i32.const 16) (i32.const 200))
            (if (i32.eqz (local.get 7)) (then (return (i32.const 16))))
            {prepare}
            {}{}{}{}
            (i32.const 16))"#,
        plain(20, headers),
        plain(24, header_count),
        plain(28, body),
        plain(32, body_length),
    ))
}

#[test]
fn an_answer_that_points_outside_of_memory_traps() {
    let scene = Scene::new(
        Host::builder()
            .function("body", &answering("", [0, 0, 64, 0xffff_ffff]), "")
            .function("headers", &answering("", [0, 0x0fff_ffff, 64, 0]), "")
            .function("far", &answering("", [0, 0, 0xffff_fff0, 1]), "")
            .function(
                "record",
                &answering("(return (i32.const 0x7ffffff0))", [0, 0, 0, 0]),
                "",
            ),
    );
    for target in ["/body", "/headers", "/far", "/record"] {
        // The memory has 40 pages: all of it is outside, and nothing else is
        // wrong with it.
        let response = scene.beside(target, "x");
        assert_eq!(response.status, 502, "{target}: {response:?}");
        let record = scene.host.record(response.request_id());
        assert_eq!(record["outcome"], "trap", "{target}: {record}");
        assert_eq!(scene.host.get(&format!("{target}/ok")).status, 200);
    }
    scene.end();
}

#[test]
fn an_answer_that_names_the_same_bytes_many_times_costs_what_it_says() {
    // 1000 headers, each with the same 16 KiB as its value: 16 MiB from 32 KiB.
    let prepare = "
        (loop $next
            (i32.store
                (i32.add (i32.const 65536) (i32.mul (local.get $n) (i32.const 16)))
                (i32.const 1024))
            (i32.store offset=4
                (i32.add (i32.const 65536) (i32.mul (local.get $n) (i32.const 16)))
                (i32.const 1))
            (i32.store offset=8
                (i32.add (i32.const 65536) (i32.mul (local.get $n) (i32.const 16)))
                (i32.const 131072))
            (i32.store offset=12
                (i32.add (i32.const 65536) (i32.mul (local.get $n) (i32.const 16)))
                (i32.const 16384))
            (br_if $next (i32.lt_u
                (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                (i32.const 1000))))
        (i32.store8 (i32.const 1024) (i32.const 97))
        (memory.fill (i32.const 131072) (i32.const 97) (i32.const 16384))";
    let component = answering(prepare, [65536, 1000, 64, 0]);
    let scene = Scene::new(Host::builder().function("copies", &component, ""));
    scene.post_ends("/copies", "x", &TOO_LARGE);
    scene.end();
}

#[test]
fn a_message_that_is_no_text_traps() {
    // The name of a header that is no UTF-8.
    let prepare = "
        (i32.store (i32.const 1000) (i32.const 1024))
        (i32.store (i32.const 1004) (i32.const 2))
        (i32.store8 (i32.const 1024) (i32.const 0xff))";
    let component = answering(prepare, [1000, 1, 64, 0]);
    let scene = Scene::new(Host::builder().function("mute", &component, ""));
    scene.post_ends("/mute", "x", &trap(""));
    scene.end();
}

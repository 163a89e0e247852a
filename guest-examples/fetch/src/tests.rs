use std::cell::RefCell;
use std::rc::Rc;

use super::*;

/// A status with a body, or none.
type Said = Result<(u16, Vec<u8>), FetchError>;

/// What the upstream does, and the URLs that it was asked for.
struct Upstream {
    answer: Rc<RefCell<Said>>,
    headers: Rc<RefCell<Vec<(&'static str, &'static str)>>>,
    asked: Rc<RefCell<Vec<String>>>,
}

impl Upstream {
    fn new() -> Self {
        dunlin_sdk::config::set("upstream", "https://up.example/v1/");
        dunlin_sdk::config::set("max-age", "60s");
        dunlin_sdk::config::set("max-stale", "1h");
        let upstream = Self {
            answer: Rc::new(RefCell::new(Ok((200, b"one".to_vec())))),
            headers: Rc::default(),
            asked: Rc::default(),
        };
        let (answer, headers, asked) = (
            Rc::clone(&upstream.answer),
            Rc::clone(&upstream.headers),
            Rc::clone(&upstream.asked),
        );
        fetch::stub(move |request| {
            asked.borrow_mut().push(request.url().to_owned());
            let (status, body) = answer.borrow().clone()?;
            let response = fetch::Response::new(status, body);
            let headers = headers.borrow();
            let headers = headers.iter();
            Ok(headers.fold(response, |response, (name, value)| {
                response.with_header(*name, *value)
            }))
        });
        upstream
    }

    fn says(&self, status: u16, body: &str) {
        *self.answer.borrow_mut() = Ok((status, body.into()));
    }

    fn fails(&self, error: FetchError) {
        *self.answer.borrow_mut() = Err(error);
    }

    fn asked(&self) -> usize {
        self.asked.borrow_mut().drain(..).count()
    }
}

fn get(path: &str, seconds: u64) -> Result<Response, Error> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds);
    answer(&Request::new("GET", path), now)
}

/// Which it was, how old, and the body.
#[track_caller]
fn got(path: &str, seconds: u64) -> (String, Option<String>, String) {
    let response = get(path, seconds).unwrap();
    let header = |name| response.header(name).map(str::to_owned);
    let body = String::from_utf8(response.body().to_vec()).unwrap();
    (header("x-cache").unwrap(), header("age"), body)
}

fn is(cache: &str, age: Option<&str>, body: &str) -> (String, Option<String>, String) {
    (cache.to_owned(), age.map(str::to_owned), body.to_owned())
}

#[track_caller]
fn refused(path: &str, seconds: u64) -> u16 {
    let error = get(path, seconds).map(|_| ()).unwrap_err();
    let error = error.downcast::<HttpError>().unwrap();
    error.status().as_u16()
}

#[test]
fn an_answer_is_kept_as_long_as_it_is_young() {
    let upstream = Upstream::new();
    assert_eq!(got("/fetch/a?b=c", 0), is("miss", None, "one"));
    assert_eq!(*upstream.asked.borrow(), ["https://up.example/v1/a?b=c"]);
    upstream.says(200, "two");
    assert_eq!(got("/fetch/a?b=c", 59), is("hit", Some("59"), "one"));
    assert_eq!(upstream.asked(), 1);
    // Another query is another page, and so is one of another upstream.
    assert_eq!(got("/fetch/a", 59), is("miss", None, "two"));
    assert_eq!(got("/fetch/a?b=c", 60), is("miss", None, "two"));
    assert_eq!(got("/fetch/a?b=c", 61), is("hit", Some("1"), "two"));
    dunlin_sdk::config::set("upstream", "https://other.example");
    assert_eq!(got("/fetch/a?b=c", 61), is("miss", None, "two"));
    // From before the clock was set back.
    assert_eq!(got("/fetch/a?b=c", 30), is("miss", None, "two"));
    assert_eq!(upstream.asked(), 4);
}

#[test]
fn what_was_kept_stands_in_for_an_upstream_that_fails() {
    let upstream = Upstream::new();
    upstream.fails(FetchError::Timeout("connecting"));
    assert_eq!(refused("/fetch/a", 0), 504);
    upstream.says(200, "one");
    assert_eq!(got("/fetch/a", 0).0, "miss", "the failure was not kept");
    upstream.fails(FetchError::Unreachable("refused".into()));
    assert_eq!(got("/fetch/a", 100), is("stale", Some("100"), "one"));
    upstream.says(503, "sorry");
    assert_eq!(got("/fetch/a", 3_599), is("stale", Some("3599"), "one"));
    assert_eq!(refused("/fetch/a", 3_600), 502, "too old");
    assert_eq!(refused("/fetch/b", 100), 502, "never seen");
}

#[test]
fn errors_and_what_is_not_for_everybody_are_passed_on_and_not_kept() {
    let upstream = Upstream::new();
    upstream.says(404, "no");
    for _ in 0..2 {
        let response = get("/fetch/a", 0).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.header("x-cache"), Some("miss"));
    }
    assert_eq!(upstream.asked(), 2);
    upstream.says(200, "mine");
    for header in [
        ("set-cookie", "a=1"),
        ("cache-control", "max-age=60, No-Store"),
        ("cache-control", "private=\"x-name\""),
        ("cache-control", "no-cache"),
    ] {
        *upstream.headers.borrow_mut() = vec![header];
        for _ in 0..2 {
            assert_eq!(got("/fetch/a", 0).0, "miss", "{header:?}");
        }
    }
    *upstream.headers.borrow_mut() = vec![("cache-control", "public, max-age=1")];
    upstream.says(200, &"a".repeat(MAX_BODY + 1));
    for _ in 0..2 {
        assert_eq!(got("/fetch/a", 0).0, "miss", "too large");
    }
    upstream.says(
        200,
        &"a".repeat(MAX_BODY - "application/octet-stream".len()),
    );
    assert_eq!(
        [got("/fetch/a", 0).0, got("/fetch/a", 0).0],
        ["miss", "hit"]
    );
    // What is gone does not come back when the upstream fails.
    upstream.says(410, "gone");
    get("/fetch/a", 100).unwrap();
    upstream.fails(FetchError::Unreachable("refused".into()));
    assert_eq!(refused("/fetch/a", 101), 502);
}

#[test]
fn a_redirect_is_the_clients() {
    let upstream = Upstream::new();
    upstream.says(301, "");
    *upstream.headers.borrow_mut() = vec![("location", "/v1/b"), ("server", "odd")];
    let response = get("/fetch/a", 0).unwrap();
    assert_eq!(response.status().as_u16(), 301);
    assert_eq!(response.header("location"), Some("/v1/b"));
    assert_eq!(response.header("server"), None);
}

#[test]
fn a_path_stays_below_that_of_the_upstream() {
    let of = |path: &str| {
        let request = Request::new("GET", path);
        target("https://up.example/v1", &request).map_err(|error| error.status().as_u16())
    };
    for (path, url) in [
        ("/fetch", "https://up.example/v1/"),
        ("/fetch/", "https://up.example/v1/"),
        ("/fetch/a/b", "https://up.example/v1/a/b"),
        ("/fetch/fetch/..a", "https://up.example/v1/fetch/..a"),
        ("/fetch/a%20b?c=../d", "https://up.example/v1/a%20b?c=../d"),
        ("/fetch//a", "https://up.example/v1//a"),
        ("/fetch/a;..;/b", "https://up.example/v1/a;..;/b"),
    ] {
        assert_eq!(of(path).as_deref(), Ok(url));
    }
    for path in [
        "..",
        "a/../../b",
        "a/.",
        "%2E./b",
        "..%2fb",
        "a%5C..",
        "..\\b",
        "..;/b",
        "a/..;x=1/../b",
        "%2e%2E%3bx/b",
        "a/.;",
    ] {
        assert_eq!(of(&format!("/fetch/{path}")), Err(400), "{path}");
    }
    let longest = MAX_KEY - "https://up.example/v1/".len();
    assert!(of(&format!("/fetch/{}", "a".repeat(longest))).is_ok());
    assert_eq!(of(&format!("/fetch/{}", "a".repeat(longest + 1))), Err(414));
}

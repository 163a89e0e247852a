//! Counters by name, in a bucket that outlives the function:
//!
//! - `GET /counter/{name}` answers `{ "count": …, "last": … }`,
//! - `POST` with a body such as `{ "by": 2, "who": "ada" }`, or none, counts up,
//! - `DELETE` forgets it.
//!
//! A counter is more than its number here, so it is read, changed and written back: by
//! compare-and-swap, which is tried again if somebody else was faster. For a number alone
//! there is `Bucket::increment`.

use dunlin_sdk::key_value::{self, KeyValueError};
use dunlin_sdk::{Error, HttpError, Request, Response, StatusCode, config};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Default, PartialEq, Debug)]
struct Counter {
    count: u64,
    /// Who counted last.
    last: Option<String>,
}

#[derive(Deserialize)]
struct Step {
    #[serde(default = "one")]
    by: u64,
    who: Option<String>,
}

fn one() -> u64 {
    1
}

#[dunlin_sdk::http]
fn handle(request: Request) -> Result<Response, Error> {
    let name = request.param("name").unwrap_or_default();
    let counters = key_value::open("counters")?;
    match request.method() {
        "GET" => {
            let counter: Counter = counters.get_json(name)?.unwrap_or_default();
            Ok(Response::json(&counter))
        }
        "POST" => {
            let step = match request.body().is_empty() {
                true => Step { by: 1, who: None },
                false => request.json()?,
            };
            let most = config::get("most").map_or(Ok(u64::MAX), |most| most.parse())?;
            let mut is_too_much = false;
            let counter = counters.update(name, |value| {
                let mut counter = match &value {
                    Some(value) => serde_json::from_slice(value).map_err(not_ours)?,
                    None => Counter::default(),
                };
                let sum = counter.count.checked_add(step.by);
                match sum.filter(|sum| *sum <= most) {
                    Some(sum) => {
                        (counter.count, counter.last) = (sum, step.who.clone());
                        serde_json::to_vec(&counter).map_err(not_ours)
                    }
                    None => {
                        is_too_much = true;
                        Err(KeyValueError::Other(format!("it would be above {most}")))
                    }
                }
            });
            if is_too_much {
                return Err(
                    HttpError::new(StatusCode::CONFLICT, "it cannot count that far").into(),
                );
            }
            let answer = Response::new(StatusCode::OK).with_body(counter?);
            Ok(answer.with_header("content-type", "application/json"))
        }
        "DELETE" => {
            counters.delete(name)?;
            Ok(Response::empty())
        }
        _ => {
            Ok(Response::new(StatusCode::METHOD_NOT_ALLOWED)
                .with_header("allow", "GET, POST, DELETE"))
        }
    }
}

fn not_ours(error: serde_json::Error) -> KeyValueError {
    KeyValueError::Other(format!("not a counter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, body: &str) -> Result<Response, Error> {
        let request = Request::new(method, "/counter/tea").with_param("name", "tea");
        handle(request.with_body(body))
    }

    fn count() -> Counter {
        serde_json::from_slice(ask("GET", "").unwrap().body()).unwrap()
    }

    #[test]
    fn it_counts_up_to_what_is_configured_and_starts_anew() {
        assert_eq!(count(), Counter::default());
        ask("POST", "").unwrap();
        ask("POST", r#"{ "by": 2, "who": "ada" }"#).unwrap();
        let last = Some("ada".to_owned());
        assert_eq!(count(), Counter { count: 3, last });
        config::set("most", "3");
        ask("POST", "").unwrap_err();
        assert_eq!(count().count, 3);
        ask("DELETE", "").unwrap();
        assert_eq!(count(), Counter::default());
    }
}

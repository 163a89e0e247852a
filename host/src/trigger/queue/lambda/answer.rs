//! What a function answers to a batch of which it may report messages as failed.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::queue::cut_reason;

/// An answer that reports failed messages in no valid way. To Lambda the whole batch failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReport {
    /// It cannot be read.
    #[error(
        "the answer to the batch is no report of failed messages: {0}; answer \
         `{{\"batchItemFailures\": [{{\"itemIdentifier\": \"…\"}}]}}` with `messageId`s of \
         the batch, or nothing"
    )]
    Malformed(String),
    /// It names a message that was not in the batch.
    #[error(
        "the answer to the batch reports a message {0} that is not in it; report `messageId`s \
         of the batch's records"
    )]
    Unknown(Uuid),
}

#[derive(Deserialize)]
struct Report {
    #[serde(rename = "batchItemFailures", default)]
    failures: Option<Vec<Failed>>,
}

/// The id of a message that failed.
struct Failed(Uuid);

impl<'de> Deserialize<'de> for Failed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Failed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with `itemIdentifier`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Failed, A::Error> {
                let mut id = None;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "itemIdentifier" {
                        id = Some(map.next_value::<String>()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                let id = id.ok_or_else(|| A::Error::missing_field("itemIdentifier"))?;
                Uuid::try_parse(&id).map(Failed).map_err(|_| {
                    let shown: String = id.chars().take(64).collect();
                    A::Error::custom(format_args!(
                        "`itemIdentifier` is `{}`, not the id of a message",
                        shown.escape_debug()
                    ))
                })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Which messages of a batch failed, as places in it, in order.
///
/// None if the answer, or its `batchItemFailures`, is empty, `null` or not there, as
/// [Lambda documents][1]; `""`, `[]` and an object with other things are empty too, as it
/// does. For functions whose trigger has `ReportBatchItemFailures` only: of others Lambda
/// ignores the answer.
///
/// # Errors
/// If it is no such report, or names a message that is not in the batch: all failed.
///
/// [1]: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
pub fn failures(answer: &[u8], batch: &[Uuid]) -> Result<Vec<usize>, InvalidReport> {
    let malformed = |error: serde_json::Error| {
        InvalidReport::Malformed(cut_reason(&error.to_string()).to_owned())
    };
    let answer = answer.trim_ascii();
    let report = match answer {
        b"" | b"null" | b"\"\"" => return Ok(Vec::new()),
        [b'{', ..] => serde_json::from_slice::<Report>(answer).map_err(malformed)?,
        _ => {
            let is_empty = matches!(serde_json::from_slice::<[(); 0]>(answer), Ok([]));
            return match serde_json::from_slice::<IgnoredAny>(answer) {
                Ok(_) if is_empty => Ok(Vec::new()),
                Ok(_) => Err(InvalidReport::Malformed("it is no object".to_owned())),
                Err(error) => Err(malformed(error)),
            };
        }
    };
    let places: HashMap<Uuid, usize> = batch.iter().copied().zip(0..).collect();
    let failures = report.failures.unwrap_or_default();
    let failures = failures.into_iter().map(|Failed(id)| {
        let place = places.get(&id).copied();
        place.ok_or(InvalidReport::Unknown(id))
    });
    let mut failures = failures.collect::<Result<Vec<usize>, _>>()?;
    failures.sort_unstable();
    failures.dedup();
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(0x059f_36b4_87a3_44ab_83d2_6619_7583_0a7d);
    const B: Uuid = Uuid::from_u128(2);
    const C: Uuid = Uuid::from_u128(3);

    fn of(answer: &str) -> Result<Vec<usize>, InvalidReport> {
        failures(answer.as_bytes(), &[A, B, C])
    }

    fn report(ids: &[Uuid]) -> String {
        let items = ids
            .iter()
            .map(|id| serde_json::json!({"itemIdentifier": id.to_string()}));
        serde_json::json!({"batchItemFailures": items.collect::<Vec<_>>()}).to_string()
    }

    #[test]
    fn what_reports_nothing_is_success() {
        for answer in [
            "",
            " \n",
            "null",
            "{}",
            "[]",
            "[ ]",
            r#""""#,
            r#"{"batchItemFailures": []}"#,
            r#"{"batchItemFailures": null}"#,
            // Not what was asked for, but many handlers answer so.
            r#"{"statusCode": 200, "body": {"batchItemFailures": [1]}}"#,
        ] {
            assert_eq!(of(answer), Ok(vec![]), "{answer}");
        }
    }

    #[test]
    fn what_is_no_report_is_failure_of_all() {
        for (answer, reason) in [
            ("ok", "expected value"),
            ("{", "EOF"),
            (r#"{"batchItemFailures": []} x"#, "trailing characters"),
            ("\"ok\"", "no object"),
            ("true", "no object"),
            ("0", "no object"),
            ("[1]", "no object"),
            (r#"[[{"itemIdentifier": "x"}]]"#, "no object"),
            (r#"{"batchItemFailures": 5}"#, "invalid type"),
            (r#"{"batchItemFailures": {}}"#, "invalid type"),
            (
                r#"{"batchItemFailures": ["x"]}"#,
                "an object with `itemIdentifier`",
            ),
            (r#"{"batchItemFailures": [null]}"#, "invalid type"),
            (r#"{"batchItemFailures": [["x"]]}"#, "invalid type"),
            (
                r#"{"batchItemFailures": [{}]}"#,
                "missing field `itemIdentifier`",
            ),
            (
                r#"{"batchItemFailures": [{"foo": "x"}]}"#,
                "missing field `itemIdentifier`",
            ),
            (
                r#"{"batchItemFailures": [{"ItemIdentifier": "x"}]}"#,
                "missing field",
            ),
            (
                r#"{"batchItemFailures": [{"itemIdentifier": null}]}"#,
                "invalid type: null",
            ),
            (
                r#"{"batchItemFailures": [{"itemIdentifier": 123}]}"#,
                "invalid type",
            ),
            (
                r#"{"batchItemFailures": [{"itemIdentifier": ""}]}"#,
                "is ``, not the id",
            ),
            (
                r#"{"batchItemFailures": [{"itemIdentifier": "a\nb"}]}"#,
                r"is `a\nb`, not the id",
            ),
        ] {
            let error = of(answer).unwrap_err();
            assert!(matches!(error, InvalidReport::Malformed(_)), "{answer}");
            assert!(error.to_string().contains(reason), "{answer}: {error}");
        }
        let other = Uuid::from_u128(9);
        // Also beside one that is in the batch.
        assert_eq!(of(&report(&[A, other])), Err(InvalidReport::Unknown(other)));
        let error = failures(b"\xff", &[A]).unwrap_err();
        assert!(matches!(error, InvalidReport::Malformed(_)), "{error}");
    }

    #[test]
    fn messages_are_reported_by_their_ids() {
        assert_eq!(of(&report(&[B])), Ok(vec![1]));
        assert_eq!(of(&report(&[C, A, C])), Ok(vec![0, 2]));
        let more =
            format!(r#"{{"batchItemFailures":[{{"x":{{}},"itemIdentifier":"{B}"}}],"y":1}}"#);
        assert_eq!(of(&more), Ok(vec![1]));
    }

    #[test]
    fn the_report_of_lambdas_rust_types_is_read() {
        use aws_lambda_events::event::sqs::SqsBatchResponse;

        let mut response = SqsBatchResponse::default();
        assert_eq!(of(&serde_json::to_string(&response).unwrap()), Ok(vec![]));
        response.add_failure(C.to_string());
        response.add_failure(B.to_string());
        assert_eq!(
            of(&serde_json::to_string(&response).unwrap()),
            Ok(vec![1, 2])
        );
    }
}

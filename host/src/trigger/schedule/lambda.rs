//! Lambda's form of a schedule's event: what EventBridge sends.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

/// One time at which a schedule is due.
#[derive(Clone, Copy, Debug)]
pub struct Firing<'a> {
    /// The name of the schedule, as a rule's.
    pub schedule: &'a str,
    /// The event's id: the same if it has to be sent again.
    pub id: Uuid,
    /// When it was due, in milliseconds since 1970.
    pub time: i64,
    /// Whose rule it would be.
    pub account: &'a str,
    /// Where.
    pub region: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Event<'a> {
    version: &'static str,
    id: String,
    detail_type: &'static str,
    source: &'static str,
    account: &'a str,
    time: String,
    region: &'a str,
    resources: [String; 1],
    detail: Detail,
}

#[derive(Serialize)]
struct Detail {}

/// The event: EventBridge's "Scheduled Event" as JSON, or the payload that the schedule has
/// instead of it, byte for byte.
#[must_use]
pub fn event(firing: &Firing<'_>, payload: Option<&[u8]>) -> Vec<u8> {
    if let Some(payload) = payload {
        return payload.to_vec();
    }
    let Firing {
        schedule,
        id,
        time,
        account,
        region,
    } = *firing;
    let event = Event {
        version: "0",
        id: id.to_string(),
        detail_type: "Scheduled Event",
        source: "aws.events",
        account,
        time: seconds(time),
        region,
        resources: [format!("arn:aws:events:{region}:{account}:rule/{schedule}")],
        detail: Detail {},
    };
    serde_json::to_vec(&event).expect("strings are always JSON")
}

/// `2015-10-08T16:53:06Z`: EventBridge's times have no parts of seconds.
fn seconds(millis: i64) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let time = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000));
    // Only years that no clock shows cannot be written.
    time.ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lambda_events::event::cloudwatch_events::CloudWatchEvent;
    use aws_lambda_events::event::eventbridge::EventBridgeEvent;
    use serde_json::{Value, json};

    use super::*;

    const FIRING: Firing<'_> = Firing {
        schedule: "my-scheduled-rule",
        id: Uuid::from_u128(0x53dc_4d37_cffa_4f76_80c9_8b7d_4a4d_2eaa),
        time: 1_444_323_186_999,
        account: "123456789012",
        region: "us-east-1",
    };

    #[test]
    fn the_event_is_eventbridges() {
        // `example-eventbridge-schedule.json` of aws_lambda_events 1.2.1.
        let expected = json!({
            "version": "0",
            "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "account": "123456789012",
            "time": "2015-10-08T16:53:06Z",
            "region": "us-east-1",
            "resources": ["arn:aws:events:us-east-1:123456789012:rule/my-scheduled-rule"],
            "detail": {}
        });
        let event = event(&FIRING, None);
        assert_eq!(serde_json::from_slice::<Value>(&event).unwrap(), expected);
    }

    #[test]
    fn the_event_is_one_of_lambdas_rust_types() {
        let bytes = event(&FIRING, None);
        let event: EventBridgeEvent = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(event.version.as_deref(), Some("0"));
        assert_eq!(event.id, Some(FIRING.id.to_string()));
        assert_eq!(event.detail_type, "Scheduled Event");
        assert_eq!(event.source, "aws.events");
        assert_eq!(event.account.as_deref(), Some(FIRING.account));
        assert_eq!(event.time.unwrap().timestamp(), FIRING.time / 1000);
        assert_eq!(event.region.as_deref(), Some(FIRING.region));
        assert_eq!(event.resources.unwrap().len(), 1);
        assert_eq!(event.detail, json!({}));
        let event: CloudWatchEvent = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(event.time.timestamp(), FIRING.time / 1000);
    }

    #[test]
    fn a_payload_takes_its_place() {
        for payload in [b" {\"a\": 1.0} ".as_slice(), b"", b"\xff"] {
            assert_eq!(event(&FIRING, Some(payload)), payload);
        }
    }

    #[test]
    fn no_time_is_too_odd() {
        assert_eq!(seconds(-1), "1969-12-31T23:59:59Z");
        assert_eq!(seconds(i64::MAX), "");
    }
}

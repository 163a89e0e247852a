//! An attribute's value as it lies in a store: text as it is, other bytes as base64. Numbers
//! of bytes, as earlier versions wrote them, are read too.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form<'a> {
    Text(Cow<'a, str>),
    Bytes { base64: String },
    Numbers(Vec<u8>),
}

pub(super) fn serialize<S: Serializer>(value: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let form = match std::str::from_utf8(value) {
        Ok(text) => Form::Text(text.into()),
        Err(_) => Form::Bytes {
            base64: STANDARD_NO_PAD.encode(value),
        },
    };
    form.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    match Form::deserialize(from)? {
        Form::Text(text) => Ok(text.into_owned().into_bytes()),
        Form::Bytes { base64 } => STANDARD_NO_PAD.decode(base64).map_err(D::Error::custom),
        Form::Numbers(bytes) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use crate::queue::message::Attribute;

    fn attribute(value: &[u8]) -> Attribute {
        Attribute {
            kind: "Binary".to_owned(),
            value: value.to_vec(),
        }
    }

    #[test]
    fn text_lies_there_as_it_is_and_other_bytes_as_base64() {
        for (value, json) in [
            (
                &b"plain \"text\""[..],
                r#"{"t":"Binary","v":"plain \"text\""}"#,
            ),
            (b"", r#"{"t":"Binary","v":""}"#),
            (b"[1]", r#"{"t":"Binary","v":"[1]"}"#),
            (b"\xff\x00\xfe", r#"{"t":"Binary","v":{"base64":"/wD+"}}"#),
            (b"\xff", r#"{"t":"Binary","v":{"base64":"/w"}}"#),
        ] {
            let attribute = attribute(value);
            assert_eq!(serde_json::to_string(&attribute).unwrap(), json);
            assert_eq!(serde_json::from_str::<Attribute>(json).unwrap(), attribute);
        }
    }

    #[test]
    fn what_earlier_versions_wrote_is_read() {
        let old = r#"{"t":"Binary","v":[0,255,104]}"#;
        let read: Attribute = serde_json::from_str(old).unwrap();
        assert_eq!(read, attribute(b"\x00\xffh"));
        let empty: Attribute = serde_json::from_str(r#"{"t":"Binary","v":[]}"#).unwrap();
        assert_eq!(empty, attribute(b""));
        for bad in [r#"{"t":"B","v":[256]}"#, r#"{"t":"B","v":{"base64":"?"}}"#] {
            assert!(serde_json::from_str::<Attribute>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn random_bytes_take_little_more_than_themselves() {
        let value: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let json = serde_json::to_string(&attribute(&value)).unwrap();
        assert!(json.len() < 13_500, "{}", json.len());
    }
}

//! The tests of a pattern: what a value must be.

use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Number, Value};

/// What a value must be.
pub(super) enum Test {
    /// This very null, truth value, number or text.
    Exactly(Value),
    /// Any value.
    Exists,
    /// None: there is nothing to look at.
    Absent,
    /// A text like this.
    Text(TextTest),
    /// No text like any of these; what is no text is none.
    NoText(Vec<TextTest>),
    /// None of these numbers; what is no number is none.
    NoNumber(Vec<Number>),
    /// A number in this range.
    Numeric(Range),
    /// An address in this network.
    Cidr(Network),
}

/// What a text must be.
pub(super) enum TextTest {
    Exactly(String),
    Prefix(String),
    Suffix(String),
    Wildcard(Wildcard),
    /// The same without regard to case; the text is folded.
    IgnoreCase(String),
    PrefixIgnoreCase(String),
    SuffixIgnoreCase(String),
}

/// Bounds of numbers, each with whether it is in the range itself.
#[derive(Default)]
pub(super) struct Range {
    pub(super) bottom: Option<(f64, bool)>,
    pub(super) top: Option<(f64, bool)>,
}

/// A network: an address, and how many of its first bits count.
pub(super) struct Network {
    address: IpAddr,
    bits: u32,
}

/// The texts between the `*` of a wildcard: two at least, or one if it has none.
pub(super) struct Wildcard(Vec<String>);

impl Test {
    /// Whether a value that is no list and no object is such.
    pub(super) fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::Absent, _) => false,
            (Self::Exactly(Value::Number(wanted)), Value::Number(number)) => equal(wanted, number),
            (Self::Exactly(wanted), value) => wanted == value,
            (Self::Text(test), Value::String(text)) => test.matches(text),
            (Self::NoText(tests), Value::String(text)) => {
                !tests.iter().any(|test| test.matches(text))
            }
            (Self::NoNumber(numbers), Value::Number(number)) => {
                !numbers.iter().any(|unwanted| equal(unwanted, number))
            }
            (Self::NoText(_) | Self::NoNumber(_), _) => true,
            (Self::Numeric(range), Value::Number(number)) => {
                number.as_f64().is_some_and(|number| range.has(number))
            }
            (Self::Cidr(network), Value::String(text)) => {
                text.parse().is_ok_and(|address| network.has(address))
            }
            (Self::Text(_) | Self::Numeric(_) | Self::Cidr(_), _) => false,
        }
    }
}

/// By value. Integers exactly: ids are often longer than what a float holds.
fn equal(a: &Number, b: &Number) -> bool {
    let integer = |n: &Number| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a == b,
        _ => matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if same(a, b)),
    }
}

/// The same in the 15 digits that EventBridge compares. The one after them may differ for
/// numbers that are written differently.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-15 * a.abs().max(b.abs())
}

/// Without case: letter by letter, so that a part folds as it does in the whole.
pub(super) fn fold(text: &str) -> String {
    folded(text).collect()
}

fn folded(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

/// Whether these begin with those.
fn begin(mut letters: impl Iterator<Item = char>, mut with: impl Iterator<Item = char>) -> bool {
    with.all(|letter| letters.next() == Some(letter))
}

impl TextTest {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exactly(wanted) => text == wanted,
            Self::Prefix(wanted) => text.starts_with(wanted),
            Self::Suffix(wanted) => text.ends_with(wanted),
            Self::Wildcard(wildcard) => wildcard.matches(text),
            Self::IgnoreCase(wanted) => folded(text).eq(wanted.chars()),
            Self::PrefixIgnoreCase(wanted) => begin(folded(text), wanted.chars()),
            Self::SuffixIgnoreCase(wanted) => begin(folded(text).rev(), wanted.chars().rev()),
        }
    }
}

impl Range {
    fn has(&self, number: f64) -> bool {
        let beyond = |is_beyond, (bound, inclusive)| match same(number, bound) {
            true => inclusive,
            false => is_beyond,
        };
        self.bottom
            .is_none_or(|bottom| beyond(number > bottom.0, bottom))
            && self.top.is_none_or(|top| beyond(number < top.0, top))
    }
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                // A shift by the whole width: all addresses.
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    /// What is wrong.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, bits) = text.split_once('/').ok_or("has no `/`")?;
        let address: IpAddr = address.parse().map_err(|_| "has no IP address")?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let is_number = bits.bytes().all(|b| b.is_ascii_digit());
        let bits = bits.parse().ok().filter(|&bits| bits <= width && is_number);
        let bits = bits.ok_or("has no length that such an address can have")?;
        Ok(Self { address, bits })
    }
}

impl Wildcard {
    /// Part by part, each at its first place: so in one pass.
    fn matches(&self, text: &str) -> bool {
        let (first, rest) = self.0.split_first().expect("a text has one part at least");
        let Some((last, middle)) = rest.split_last() else {
            return text == first;
        };
        let Some(text) = text.strip_prefix(first.as_str()) else {
            return false;
        };
        let Some(mut text) = text.strip_suffix(last.as_str()) else {
            return false;
        };
        for part in middle {
            let Some(at) = text.find(part.as_str()) else {
                return false;
            };
            text = &text[at + part.len()..];
        }
        true
    }
}

impl FromStr for Wildcard {
    /// What is wrong.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            let part = parts.last_mut().expect("it starts with one");
            match (char, chars.peek()) {
                ('*', Some('*')) => return Err("has `**`, where one `*` says the same"),
                ('*', _) => parts.push(String::new()),
                ('\\', Some('*' | '\\')) => part.extend(chars.next()),
                ('\\', _) => {
                    return Err("has a `\\` before another character than `*` and `\\`");
                }
                (char, _) => part.push(char),
            }
        }
        Ok(Self(parts))
    }
}

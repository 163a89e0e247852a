//! Receipts: what a message was received by, as text that only the host can have written.
//!
//! Nothing is kept for them: they name the message and the receive, with a MAC over both.
//! So they hold over a restart, and one of another message or an earlier receive is told
//! apart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::QueueName;

/// Names one receive of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The queue, as the store counts them.
    pub queue: i64,
    /// The message's sequence number.
    pub sequence: i64,
    /// Which receive it was of all that the message ever had, from 1.
    pub round: i64,
}

/// A text that is no receipt of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this receipt handle is none of this host's; use the one of the latest receive")]
pub struct InvalidReceipt;

/// Signs receipts.
#[derive(Clone)]
pub struct ReceiptKey([u8; 32]);

/// Half of a SHA-256 MAC: enough against guessing (RFC 2104 section 5).
const MAC: usize = 16;
const FACTS: usize = 8 + 8 + 8;

impl ReceiptKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn mac(&self, queue: &QueueName, facts: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(facts);
        mac.update(queue.as_str().as_bytes());
        mac
    }

    /// The receipt as text, for this queue.
    #[must_use]
    pub fn seal(&self, queue: &QueueName, receipt: Receipt) -> String {
        let mut bytes = Vec::with_capacity(FACTS + MAC);
        bytes.extend(receipt.queue.to_be_bytes());
        bytes.extend(receipt.sequence.to_be_bytes());
        bytes.extend(receipt.round.to_be_bytes());
        let mac = self.mac(queue, &bytes).finalize().into_bytes();
        bytes.extend(&mac[..MAC]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The receipt of a text.
    ///
    /// # Errors
    /// If it is none of this key's, or of another queue.
    pub fn open(&self, queue: &QueueName, text: &str) -> Result<Receipt, InvalidReceipt> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| InvalidReceipt)?;
        if bytes.len() != FACTS + MAC {
            return Err(InvalidReceipt);
        }
        let (facts, mac) = bytes.split_at(FACTS);
        self.mac(queue, facts)
            .verify_truncated_left(mac)
            .map_err(|_| InvalidReceipt)?;
        let (queue, rest) = facts.split_first_chunk().ok_or(InvalidReceipt)?;
        let (sequence, rest) = rest.split_first_chunk().ok_or(InvalidReceipt)?;
        let (round, _) = rest.split_first_chunk().ok_or(InvalidReceipt)?;
        Ok(Receipt {
            queue: i64::from_be_bytes(*queue),
            sequence: i64::from_be_bytes(*sequence),
            round: i64::from_be_bytes(*round),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_holds_with_its_key_and_not_when_it_was_changed() {
        let key = ReceiptKey::new([7; 32]);
        let receipt = Receipt {
            queue: 3,
            sequence: 1 << 40,
            round: 2,
        };
        let queue = QueueName::new("q").unwrap();
        let text = key.seal(&queue, receipt);
        assert_eq!(key.open(&queue, &text), Ok(receipt));
        let other = QueueName::new("r").unwrap();
        assert_eq!(key.open(&other, &text), Err(InvalidReceipt));
        assert_eq!(
            ReceiptKey::new([8; 32]).open(&queue, &text),
            Err(InvalidReceipt)
        );
        for index in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[index] = if other[index] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(key.open(&queue, &other), Err(InvalidReceipt), "{index}");
        }
        for text in ["", "AAAA", "no base64!", &text[1..]] {
            assert_eq!(key.open(&queue, text), Err(InvalidReceipt), "{text}");
        }
    }
}

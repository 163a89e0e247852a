//! Takes orders from a queue, and sends an invoice for each to another.
//!
//! An order is JSON:
//!
//! ```json
//! {"id":"o-17","customer":"ada","lines":[{"thing":"kite","count":2,"cents":4200}]}
//! ```
//!
//! Messages come at least once, and clients may send an order twice. So that a
//! customer is billed once all the same, the invoice goes to a FIFO queue with
//! the order's id as its deduplication id: what comes again within five minutes
//! is taken and comes to nothing. The customer is the message group, so that
//! invoices of one customer keep their order.
//!
//! Each message of a batch is answered for itself:
//!
//! | message | what becomes of it |
//! |---|---|
//! | an order | its invoice is sent, and it is done with |
//! | no order, or one that cannot be | rejected: to the dead-letter queue, with the reason |
//! | an order while `invoices.fifo` is full | comes again when that may have changed |

use dunlin_sdk::producer::{self, Outgoing, SendError};
use dunlin_sdk::{Failure, Message};
use serde::{Deserialize, Serialize};

const INVOICES: &str = "invoices.fifo";

/// What a queue takes as a deduplication id or a group.
const MAX_ID: usize = 128;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// The client's own, the same when it sends an order again.
    id: String,
    customer: String,
    lines: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    thing: String,
    count: u32,
    /// The price of one.
    cents: u64,
}

#[derive(Serialize)]
struct Invoice<'a> {
    order: &'a str,
    customer: &'a str,
    cents: u64,
}

#[dunlin_sdk::queue]
fn handle(message: Message) -> Result<(), Failure> {
    // What is no order now will be none later: this rejects it.
    let order: Order = message.json()?;
    let cents = total(&order).map_err(Failure::reject)?;

    let invoice = Invoice {
        order: &order.id,
        customer: &order.customer,
        cents,
    };
    let invoice = Outgoing::json(&invoice)?
        .group(&order.customer)
        .deduplication_id(&order.id);
    match producer::send(INVOICES, invoice) {
        Ok(invoice) => {
            println!("order {}: {cents} cents, invoice {invoice}", order.id);
            Ok(())
        }
        Err(error @ SendError::TooLarge(_)) => Err(Failure::reject(error.to_string())),
        // Any other passes or can be put right, so the order shall come again:
        // after the delay that the host asks for, or the queue's own.
        Err(error) => Err(error.into()),
    }
}

/// What an order comes to, or why there cannot be such an order.
fn total(order: &Order) -> Result<u64, String> {
    check_id("id", &order.id)?;
    check_id("customer", &order.customer)?;
    if order.lines.is_empty() {
        return Err("the order has no lines".to_owned());
    }
    order.lines.iter().try_fold(0_u64, |total, line| {
        if line.count == 0 {
            return Err(format!("`{}` is ordered 0 times", line.thing));
        }
        line.cents
            .checked_mul(line.count.into())
            .and_then(|cents| total.checked_add(cents))
            .ok_or_else(|| "the total is too large".to_owned())
    })
}

fn check_id(name: &str, id: &str) -> Result<(), String> {
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!(
        "`{name}` is not 1 to {MAX_ID} ASCII characters without spaces"
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dunlin_sdk::Batch;
    use dunlin_sdk::producer::outbox::{self, Sent};

    use super::*;

    const ORDER: &str = r#"{"id":"o-17","customer":"ada","lines":[
        {"thing":"kite","count":2,"cents":4200},{"thing":"boat","count":1,"cents":600}]}"#;

    #[test]
    fn an_invoice_is_sent_under_the_id_of_its_order() {
        handle(Message::new(ORDER)).unwrap();
        let invoice = Outgoing::new(r#"{"order":"o-17","customer":"ada","cents":9000}"#)
            .group("ada")
            .deduplication_id("o-17");
        let expected = [Sent::Message {
            queue: INVOICES.to_owned(),
            message: invoice,
        }];
        assert_eq!(outbox::take(), expected);
    }

    #[test]
    fn an_order_that_cannot_be_is_rejected_with_the_reason() {
        let order = |id: &str, lines: &str| {
            format!(r#"{{"id":"{id}","customer":"ada","lines":[{lines}]}}"#)
        };
        let line = |count: u32, cents: u64| {
            format!(r#"{{"thing":"kite","count":{count},"cents":{cents}}}"#)
        };
        for (body, reason) in [
            ("kite".to_owned(), "body: expected value"),
            (r#"{"id":"o-1"}"#.to_owned(), "body: missing field"),
            (order("o-1", ""), "no lines"),
            (order("o 1", &line(1, 1)), "`id` is not 1 to 128"),
            (order("", &line(1, 1)), "`id` is not 1 to 128"),
            (order("o-1", &line(0, 1)), "`kite` is ordered 0 times"),
            (order("o-1", &line(2, u64::MAX)), "too large"),
        ] {
            let failure = handle(Message::new(body.as_str())).unwrap_err();
            assert!(failure.is_rejection(), "{body}");
            let told = failure.reason().unwrap();
            assert!(told.contains(reason), "{body}: {told}");
        }
        assert_eq!(outbox::take(), []);
    }

    #[test]
    fn an_order_waits_while_no_invoices_are_taken() {
        let delay = Duration::from_secs(5);
        outbox::refuse(SendError::Throttled(Some(delay)));
        let failure = handle(Message::new(ORDER)).unwrap_err();
        assert!(!failure.is_rejection());
        assert_eq!(failure.delay(), Some(delay));
    }

    #[test]
    fn one_bad_order_does_not_hold_up_the_others() {
        let batch = Batch::new([
            Message::new(ORDER).with_id("1"),
            Message::new("kite").with_id("2"),
            Message::new(ORDER).with_id("3"),
        ]);
        let result = batch.each(handle);
        let failed: Vec<&str> = result.failed().iter().map(|one| one.id.as_str()).collect();
        assert_eq!(failed, ["2"]);
        assert_eq!(outbox::take().len(), 2);
    }
}

//! Requests to the SQS API, signed as every client signs them.
//!
//! A request that is the same each time is signed once and sent again and again, which the
//! host allows for five minutes: it checks each, and the load generator's cores are not spent
//! on what clients do elsewhere.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use dunlin::api::credentials::{Credentials, FILE_NAME};
use dunlin::api::sigv4::{PayloadHash, Signer};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Kept, Request};

/// A host's queues.
pub struct SqsClient {
    address: SocketAddr,
    credentials: Credentials,
}

/// One of them, over a connection that is kept.
pub struct Queue<'a> {
    client: &'a SqsClient,
    connection: Kept,
    url: String,
}

impl SqsClient {
    /// Of the host at this admin address, with the key of its state directory.
    pub fn new(address: SocketAddr, state: &Path) -> Result<Self> {
        let credentials = Credentials::load(&state.join(FILE_NAME))?;
        Ok(Self {
            address,
            credentials,
        })
    }

    fn url(&self, queue: &str) -> String {
        format!("http://{}/123456789012/{queue}", self.address)
    }

    /// A request, signed now.
    fn request(&self, operation: &str, body: &Value) -> Result<Request> {
        let body = body.to_string();
        let request = http::Request::post(format!("http://{}/", self.address))
            .header("host", self.address.to_string())
            .header("content-type", "application/x-amz-json-1.0")
            .header("x-amz-target", format!("AmazonSQS.{operation}"))
            .header("content-length", body.len());
        let (mut parts, ()) = request.body(())?.into_parts();
        let signer = Signer {
            credentials: &self.credentials,
            region: "edge-1",
            service: "sqs",
        };
        let payload = PayloadHash::of(body.as_bytes());
        signer.sign(&mut parts, &payload, OffsetDateTime::now_utc())?;
        let mut text = "POST / HTTP/1.1\r\n".to_owned();
        for (name, value) in &parts.headers {
            let _ = write!(text, "{name}: {}\r\n", value.to_str()?);
        }
        text.push_str("\r\n");
        text.push_str(&body);
        Ok(Request {
            address: self.address,
            bytes: text.into_bytes(),
        })
    }

    /// Sends a message with this body.
    pub fn send_message(&self, queue: &str, body: &str) -> Result<Request> {
        let request = json!({"QueueUrl": self.url(queue), "MessageBody": body});
        self.request("SendMessage", &request)
    }

    /// A queue, over a connection of its own.
    pub fn queue(&self, name: &str) -> Result<Queue<'_>> {
        Ok(Queue {
            client: self,
            connection: Kept::open(self.address)?,
            url: self.url(name),
        })
    }
}

impl Queue<'_> {
    /// Sends a request that was signed before.
    pub fn repeat(&mut self, request: &Request) -> Result<()> {
        let answer = self.connection.ask(&request.bytes)?;
        let text = || String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status == 200, "{}: {}", answer.status, text());
        Ok(())
    }

    fn ask(&mut self, operation: &str, mut body: Value) -> Result<Value> {
        body["QueueUrl"] = self.url.as_str().into();
        let request = self.client.request(operation, &body)?;
        let answer = self.connection.ask(&request.bytes)?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(
            answer.status == 200,
            "{operation}: {} {text}",
            answer.status
        );
        Ok(serde_json::from_str(&text)?)
    }

    /// Receives up to ten messages, and deletes them. Answers how many.
    pub fn receive_and_delete(&mut self) -> Result<usize> {
        let received = self.ask("ReceiveMessage", json!({"MaxNumberOfMessages": 10}))?;
        let messages = received["Messages"]
            .as_array()
            .context("there is nothing to receive")?;
        let entries: Vec<Value> = messages
            .iter()
            .enumerate()
            .map(|(id, message)| {
                json!({"Id": id.to_string(), "ReceiptHandle": message["ReceiptHandle"]})
            })
            .collect();
        let count = entries.len();
        let deleted = self.ask("DeleteMessageBatch", json!({"Entries": entries}))?;
        let successful = deleted["Successful"].as_array().map_or(0, Vec::len);
        ensure!(successful == count, "not all was deleted: {deleted}");
        Ok(count)
    }

    /// How many messages may be received.
    pub fn waiting(&mut self) -> Result<u64> {
        let names = json!({"AttributeNames": ["ApproximateNumberOfMessages"]});
        let answer = self.ask("GetQueueAttributes", names)?;
        answer["Attributes"]["ApproximateNumberOfMessages"]
            .as_str()
            .and_then(|number| number.parse().ok())
            .context("the queue does not say how many messages it has")
    }
}

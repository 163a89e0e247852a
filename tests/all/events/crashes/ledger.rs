//! What is known outside of the host: what it acknowledged, and what came out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_tests::{Client, Host};
use serde_json::{Value, json};

use crate::events::ask;

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// So many that most of them wait or are held at each kill.
    Crowd,
    /// One is handled at a time; all others only wait.
    Narrow,
    /// Invokes a function.
    Chain,
    /// Fails whenever it is handled.
    Poison,
    /// Comes with such messages.
    Beside,
    /// Of a FIFO queue.
    Step,
    /// An asynchronous invocation.
    Event,
    /// Nobody reads its queue.
    Idle,
}

/// What a queue gave to this test.
struct Found {
    body: String,
    attempt: u32,
    sequence: u64,
    receives: u32,
    deleted: bool,
}

#[derive(Default)]
struct Book {
    round: u32,
    /// By id: what it is, and the round in which it was sent.
    acknowledged: BTreeMap<String, (Kind, u32)>,
    /// The ids of the steps of each group, as they were sent.
    steps: BTreeMap<String, Vec<String>>,
    /// By queue and id.
    found: BTreeMap<&'static str, BTreeMap<String, Found>>,
    /// Acknowledged and not known to be over.
    open: BTreeMap<Kind, BTreeSet<String>>,
    /// Known to be over, acknowledged or not.
    over: BTreeSet<String>,
    /// How often the test received again what it had not deleted.
    received_again: u32,
    /// Events that functions sent, by their id.
    invoked: BTreeSet<String>,
    /// The attempts of which a line was read, by id.
    lines: BTreeMap<String, BTreeSet<u32>>,
}

/// The book, which all write into.
#[derive(Default)]
pub(super) struct Ledger(Mutex<Book>);

impl Ledger {
    pub(super) fn begin(&self, round: u32) {
        self.0.lock().unwrap().round = round;
    }

    pub(super) fn acknowledged(&self, kind: Kind, id: &str) {
        let mut book = self.0.lock().unwrap();
        let round = book.round;
        let before = book.acknowledged.insert(id.to_owned(), (kind, round));
        assert_eq!(before, None, "{id} is the id of two messages");
        if !book.over.contains(id) {
            book.open.entry(kind).or_default().insert(id.to_owned());
        }
    }

    pub(super) fn step_acknowledged(&self, group: &str, id: &str) {
        self.acknowledged(Kind::Step, id);
        let mut book = self.0.lock().unwrap();
        let steps = book.steps.entry(group.to_owned()).or_default();
        steps.push(id.to_owned());
    }

    /// How many of a kind are not known to be over.
    pub(super) fn open(&self, kind: Kind) -> usize {
        let book = self.0.lock().unwrap();
        // A poison message is over when it lies with the dead letters, which are read last:
        // they are paced by those beside them.
        let kind = match kind {
            Kind::Poison => Kind::Beside,
            kind => kind,
        };
        book.open.get(&kind).map_or(0, BTreeSet::len)
    }

    /// Receives and deletes as any client does, until the host ends.
    pub(super) fn take_all(&self, client: &Client, queue: &'static str, ended: &AtomicBool) {
        while !ended.load(Ordering::SeqCst) {
            match self.take(client, queue) {
                Some(0) => std::thread::sleep(Duration::from_millis(20)),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Receives and deletes all that lies there.
    pub(super) fn take_once(&self, client: &Client, queue: &'static str) {
        while self.take(client, queue).expect("the host answers") > 0 {}
    }

    /// None: the host is gone.
    fn take(&self, client: &Client, queue: &'static str) -> Option<usize> {
        let url = format!("http://h/1/{queue}");
        let request = json!({
            "QueueUrl": url,
            "MaxNumberOfMessages": 10,
            "AttributeNames": ["All"],
            "MessageAttributeNames": ["All"],
        });
        let answer = ask(client, "ReceiveMessage", &request)?;
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() {
            return Some(0);
        }
        let mut entries = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            self.0.lock().unwrap().found(queue, message);
            let handle = &message["ReceiptHandle"];
            entries.push(json!({ "Id": index.to_string(), "ReceiptHandle": handle }));
        }
        let request = json!({ "QueueUrl": url, "Entries": entries });
        let deleted = ask(client, "DeleteMessageBatch", &request)?;
        let deleted = deleted["Successful"].as_array().unwrap();
        let mut book = self.0.lock().unwrap();
        for deleted in deleted {
            let index: usize = deleted["Id"].as_str().unwrap().parse().unwrap();
            let id = messages[index]["MessageId"].as_str().unwrap();
            let found = book.found.get_mut(queue).unwrap().get_mut(id).unwrap();
            found.deleted = true;
        }
        Some(messages.len())
    }

    /// Which attempts a guest said that it makes. Some lines are lost with the host.
    pub(super) fn note_lines(&self, host: &Host) {
        let mut book = self.0.lock().unwrap();
        for line in host.log() {
            let words = line["message"].as_str().unwrap_or_default();
            if let Some(id) = words.strip_prefix("sent lambda ") {
                book.invoked.insert(id.to_owned());
            }
            let Some(rest) = words.strip_prefix("handled id=") else {
                continue;
            };
            let (id, rest) = rest.split_once(' ').unwrap();
            let attempt = rest.strip_prefix("attempt=").unwrap();
            let attempt = attempt.split(' ').next().unwrap().parse().unwrap();
            let is_new = book.lines.entry(id.to_owned()).or_default().insert(attempt);
            assert!(is_new, "the attempt {attempt} of {id} was made twice");
        }
    }

    /// Holds what came out against what was acknowledged. Answers the figures.
    ///
    /// # Panics
    /// If a rule does not hold.
    pub(super) fn check(&self, rounds: u32, fires: usize) -> String {
        let book = self.0.lock().unwrap();
        let mut figures = String::new();
        let (handled, dead) = (book.handled(), book.dead());
        let lost: Vec<_> = book
            .acknowledged
            .iter()
            .filter(|(id, _)| !handled.contains_key(*id) && !dead.contains(*id))
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");

        let mut most = 0;
        let mut duplicates = 0;
        let mut narrow = 0;
        for (id, (kind, sent)) in &book.acknowledged {
            let Some(attempts) = handled.get(id) else {
                continue;
            };
            let times: BTreeSet<u32> = attempts.iter().copied().collect();
            let last = times.last().copied().unwrap_or(0);
            most = most.max(attempts.len());
            duplicates += attempts.len() - 1;
            match kind {
                // One more attempt for each kill, and each attempt ends once at most.
                Kind::Crowd | Kind::Chain | Kind::Narrow | Kind::Step => {
                    assert!(
                        last <= 2 + rounds - sent,
                        "{id}: attempt {last} since the round {sent}"
                    );
                    assert_eq!(times.len(), attempts.len(), "{id}: {attempts:?}");
                }
                // It and what is told of it are one commit.
                Kind::Event => {
                    assert_eq!(attempts.len(), 1, "{id}: {attempts:?}");
                    assert!(!dead.contains(id), "{id} is handled and a dead letter");
                }
                Kind::Beside => assert!(last <= 3, "{id}: {attempts:?}"),
                Kind::Poison => panic!("{id} failed, and is handled: {attempts:?}"),
                Kind::Idle => assert_eq!(times, BTreeSet::from([1]), "{id} only waited"),
            }
            if *kind == Kind::Narrow {
                narrow += last - 1;
            }
        }
        // Of those that wait behind one that is handled, none is charged.
        assert!(
            narrow <= rounds,
            "{narrow} attempts were charged in {rounds} kills"
        );
        let _ = write!(
            figures,
            "{} acknowledged, {} handled, {duplicates} handled again (one message {most} times at \
             most), {} dead letters, 0 lost",
            book.acknowledged.len(),
            book.acknowledged
                .keys()
                .filter(|id| handled.contains_key(*id))
                .count(),
            dead.len(),
        );
        let _ = write!(
            figures,
            "; {narrow} attempts charged where one message is handled at a time"
        );

        book.check_poison(&dead, &mut figures);
        book.check_order(&dead, &mut figures);
        book.check_chains(&handled, &dead);
        book.check_fires(fires, &mut figures);
        let _ = write!(
            figures,
            "; this client received {} again that it had not deleted",
            book.received_again
        );
        figures
    }
}

impl Book {
    fn found(&mut self, queue: &'static str, message: &Value) {
        let id = message["MessageId"].as_str().unwrap().to_owned();
        let body = message["Body"].as_str().unwrap().to_owned();
        let attribute = &message["MessageAttributes"]["attempt"]["StringValue"];
        let number = |value: &Value| value.as_str().map_or(0, |text| text.parse().unwrap());
        let attributes = &message["Attributes"];
        let found = Found {
            attempt: u32::try_from(number(attribute)).unwrap(),
            sequence: number(&attributes["SequenceNumber"]),
            receives: u32::try_from(number(&attributes["ApproximateReceiveCount"])).unwrap(),
            body,
            deleted: false,
        };
        let source = source(queue, &id, &found.body);
        for open in self.open.values_mut() {
            open.remove(&source);
        }
        self.over.insert(source);
        if let Some(before) = self.found.entry(queue).or_default().insert(id, found) {
            assert!(!before.deleted, "deleted, and received again: {message}");
            self.received_again += 1;
        }
    }

    fn all(&self, queue: &str) -> impl Iterator<Item = (&String, &Found)> {
        self.found.get(queue).into_iter().flatten()
    }

    /// The attempts that came to their end, by id.
    fn handled(&self) -> BTreeMap<String, Vec<u32>> {
        let mut handled: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for queue in ["out", "steps-out.fifo", "told"] {
            for (id, found) in self.all(queue) {
                let attempts = handled.entry(source(queue, id, &found.body)).or_default();
                attempts.push(found.attempt);
            }
        }
        for (id, found) in self.all("idle") {
            handled.insert(id.clone(), vec![found.receives]);
        }
        handled
    }

    fn dead(&self) -> BTreeSet<String> {
        let letters = super::DEAD.iter().flat_map(|queue| self.all(queue));
        letters.map(|(id, _)| id.clone()).collect()
    }

    fn ids(&self, kind: Kind) -> impl Iterator<Item = &String> {
        let all = self.acknowledged.iter();
        all.filter(move |(_, (own, _))| *own == kind)
            .map(|(id, _)| id)
    }

    fn check_poison(&self, dead: &BTreeSet<String>, figures: &mut String) {
        let mut poison = 0;
        for id in self.ids(Kind::Poison) {
            poison += 1;
            assert!(dead.contains(id), "{id} is poison and no dead letter");
            let attempts = self.lines.get(id).cloned().unwrap_or_default();
            assert!(attempts.iter().all(|it| *it <= 3), "{id}: {attempts:?}");
        }
        let beside = self.ids(Kind::Beside).filter(|id| dead.contains(*id));
        let events = self.ids(Kind::Event).filter(|id| dead.contains(*id));
        let _ = write!(
            figures,
            "; poison: {poison}, all of it dead letters, with {} messages from beside it and {} \
             events",
            beside.count(),
            events.count(),
        );
    }

    /// The first and the last time that steps of a group were handled are in their order.
    fn check_order(&self, dead: &BTreeSet<String>, figures: &mut String) {
        let mut ends: Vec<(u64, &str)> = self
            .all("steps-out.fifo")
            .map(|(_, found)| (found.sequence, found.body.as_str()))
            .collect();
        ends.sort_unstable();
        let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
        for (place, (_, id)) in ends.iter().enumerate() {
            first.entry(*id).or_insert(place);
            last.insert(*id, place);
        }
        let mut steps = 0;
        for (group, sent) in &self.steps {
            // A dead letter may have been handled less often than those beside it.
            let kept = sent.iter().filter(|id| !dead.contains(*id));
            for places in [&first, &last] {
                let places = kept.clone().map(|id| places[id.as_str()]);
                let places: Vec<usize> = places.collect();
                assert!(
                    places.is_sorted(),
                    "{group} is out of order: {}",
                    self.story(sent, dead)
                );
            }
            steps += sent.len();
        }
        let _ = write!(
            figures,
            "; {steps} steps of {} groups in order",
            self.steps.len()
        );
    }

    /// What became of the steps of a group, in the order in which they were handled.
    fn story(&self, sent: &[String], dead: &BTreeSet<String>) -> String {
        let all = self.all("steps-out.fifo");
        let mut ends: Vec<_> = all
            .filter_map(|(_, found)| {
                let place = sent.iter().position(|id| *id == found.body)?;
                Some((found.sequence, place, found.attempt))
            })
            .collect();
        ends.sort_unstable();
        let dead: Vec<usize> = (0..sent.len())
            .filter(|it| dead.contains(&sent[*it]))
            .collect();
        format!("(sequence, step, attempt): {ends:?}; dead letters: {dead:?}")
    }

    /// Who was handled invoked first, which was acknowledged to it.
    fn check_chains(&self, handled: &BTreeMap<String, Vec<u32>>, dead: &BTreeSet<String>) {
        let is_over = |id: &&String| handled.contains_key(*id) || dead.contains(*id);
        let lost: Vec<_> = self.invoked.iter().filter(|id| !is_over(id)).collect();
        assert!(lost.is_empty(), "events of functions are lost: {lost:?}");

        let told = self.all("told").map(|(_, found)| {
            let record: Value = serde_json::from_str(&found.body).unwrap();
            record["requestPayload"]["from"].clone()
        });
        let buried = self.all("dead-letters").map(|(_, found)| {
            let event: Value = serde_json::from_str(&found.body).unwrap_or_default();
            event["from"].clone()
        });
        let came: BTreeSet<String> = told
            .chain(buried)
            .filter_map(|from| Some(from.as_str()?.to_owned()))
            .collect();
        let lost: Vec<_> = self
            .ids(Kind::Chain)
            .filter(|id| handled.contains_key(*id) && !came.contains(*id))
            .collect();
        assert!(lost.is_empty(), "what these invoked is lost: {lost:?}");
    }

    /// Each fire that was due came, each attempt once.
    fn check_fires(&self, fires: usize, figures: &mut String) {
        let mut came: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
        let mut again = 0;
        for (_, found) in self.all("ticks") {
            let attempts = came.entry(&found.body).or_default();
            let is_new = attempts.insert(found.attempt);
            assert!(is_new, "{} came twice", found.body);
            again += usize::from(attempts.len() > 1);
        }
        for fire in 0..fires {
            let name = format!("f{fire}@");
            let ids: Vec<_> = came.keys().filter(|id| id.starts_with(&name)).collect();
            assert_eq!(ids.len(), 1, "{name}: {ids:?}");
        }
        let _ = write!(
            figures,
            "; {fires} fires were due, all came, {again} handled again"
        );
    }
}

/// The id of the message that a result is about.
fn source(queue: &str, id: &str, body: &str) -> String {
    match queue {
        "out" | "steps-out.fifo" => body.to_owned(),
        "told" => {
            let record: Value = serde_json::from_str(body).unwrap();
            let request_id = record["requestContext"]["requestId"].as_str();
            request_id.unwrap().to_owned()
        }
        _ => id.to_owned(),
    }
}

//! Schedules: each fire becomes an event of its function, through the same queue as
//! asynchronous invocations, so that attempts, ages and dead letters hold for it too.
//!
//! A fire and how far its schedule has come are one commit, so a crash neither loses a fire
//! nor sends it twice. When the clock has a gap, a written rule decides ([`plan`]).

pub mod lambda;
pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::function::{FunctionName, Overlap, Schedule};
use crate::invocation::RequestId;
use crate::queue::{Mark, MarkName, QueueError, QueueStore, Step, Stepped};
use crate::store::{Clock, WriteError};
use crate::telemetry::{Level, Telemetry};
use crate::trigger::asynchronous::{Envelope, Fire, NewEvent, queue_of};
use plan::{Kind, Planned, plan};

/// How often the clock is looked at when nothing is due: it may have been set.
const LOOK: Duration = Duration::from_secs(10);
/// How long a fire waits that cannot be stored now.
const PAUSE: Duration = Duration::from_secs(1);
/// Fires that are shown of each schedule.
pub const SHOWN: usize = 5;

/// A schedule of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom it fires.
    pub function: FunctionName,
    /// When, and how.
    pub schedule: Schedule,
}

impl Entry {
    fn mark_name(&self) -> MarkName {
        MarkName(format!("schedule/{}/{}", self.function, self.schedule.name))
    }

    /// What its mark stands for: another expression begins anew.
    fn stands_for(&self) -> String {
        format!("{} {}", self.schedule.when, self.schedule.zone.name())
    }

    /// How much later than scheduled a fire comes: the same for the same fire, and before
    /// the next is due. `begun` is where its mark was set up.
    #[must_use]
    pub fn jitter(&self, scheduled: i64, begun: i64) -> i64 {
        let most = i64::try_from(self.schedule.jitter.as_millis()).unwrap_or(i64::MAX);
        if most == 0 {
            return 0;
        }
        let next = self.schedule.when.next(scheduled, begun);
        let most = most.min(next.map_or(i64::MAX, |next| next - scheduled));
        let mut digest = Sha256::new();
        digest.update(self.mark_name().0);
        digest.update(scheduled.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let (head, _) = digest.split_first_chunk().expect("it has 32 bytes");
        i64::try_from(u64::from_be_bytes(*head) % most.unsigned_abs()).unwrap_or(0)
    }

    /// The fire of a moment, as an event.
    fn event(&self, planned: &Planned, now: i64) -> NewEvent {
        let schedule = &self.schedule;
        let mut digest = Sha256::new();
        digest.update(self.mark_name().0);
        digest.update(planned.scheduled.to_be_bytes());
        let digest: [u8; 32] = digest.finalize().into();
        let (id, _) = digest.split_first_chunk().expect("it has 32 bytes");
        let fire = Fire {
            schedule: schedule.name.clone(),
            scheduled_at: planned.scheduled.unsigned_abs(),
            fired_at: now.unsigned_abs(),
            missed: planned.missed,
            has_payload: schedule.payload.is_some(),
        };
        NewEvent {
            // The same for the same fire, as its id is.
            request_id: RequestId::of(uuid::Builder::from_custom_bytes(*id).into_uuid()),
            payload: schedule.payload.clone().unwrap_or_default(),
            envelope: Envelope {
                fire: Some(fire),
                ..Envelope::default()
            },
            depth: 0,
        }
    }
}

/// The schedules that are in force, for who looks at them.
#[derive(Clone, Default)]
pub struct Timetable(Arc<Mutex<Vec<Running>>>);

/// A schedule that is in force.
struct Running {
    entry: Entry,
    mark: Mark,
    /// When there is something to be done for it.
    due: i64,
    /// Whether a fire waits that could not be stored, which is said once.
    is_stuck: bool,
}

impl Running {
    fn look(&mut self, now: i64) {
        let Self {
            entry, mark, due, ..
        } = self;
        let next = match entry.schedule.enabled {
            true => plan::next_look(entry, *mark, now),
            false => None,
        };
        *due = next.unwrap_or(i64::MAX);
    }
}

/// A schedule as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The schedule.
    pub entry: Entry,
    /// The last fire that was sent or skipped; None before the first.
    pub last: Option<i64>,
    /// The next fires, without jitter.
    pub next: Vec<i64>,
}

impl Timetable {
    /// All of them, with the fires that come next.
    #[must_use]
    pub fn list(&self, now: i64) -> Vec<Listed> {
        let entries = self.entries();
        let listed = entries.iter().map(|Running { entry, mark, .. }| {
            let when = &entry.schedule.when;
            let next = std::iter::successors(when.next(mark.at.max(now), mark.begun), |last| {
                when.next(*last, mark.begun)
            });
            let next = match entry.schedule.enabled {
                true => next.take(SHOWN).collect(),
                false => Vec::new(),
            };
            Listed {
                entry: entry.clone(),
                last: (mark.at != mark.begun).then_some(mark.at),
                next,
            }
        });
        listed.collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen of the clock.
#[derive(Default)]
struct Seen {
    /// What it was at the last look.
    before: Option<i64>,
    /// Whether it was not set yet, which is said once.
    waits: bool,
}

/// Fires schedules.
pub struct Scheduler {
    /// Where how far they have come is kept, with their events.
    pub queues: Arc<dyn QueueStore>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where it is said what went wrong.
    pub telemetry: Telemetry,
    /// What is shown of them.
    pub timetable: Timetable,
}

impl Scheduler {
    /// Takes schedules up where they were left. Others are forgotten.
    ///
    /// # Errors
    /// If the store cannot say where that is.
    pub async fn take_up(&self, entries: Vec<Entry>) -> Result<(), QueueError> {
        let now = self.clock.wall();
        // Those that are paused begin anew when they go on: what was due meanwhile was not
        // missed.
        let running = entries.iter().filter(|entry| entry.schedule.enabled);
        let names: Vec<_> = running
            .map(|entry| (entry.mark_name(), entry.stands_for()))
            .collect();
        let mut marks = self.queues.marks(names, now).await?.into_iter();
        let paused = Mark {
            begun: now,
            at: now,
            skipped: 0,
        };
        let entries = entries.into_iter().map(|entry| {
            let mark = match entry.schedule.enabled {
                true => marks.next().unwrap_or(paused),
                false => paused,
            };
            Running {
                entry,
                mark,
                due: i64::MIN,
                is_stuck: false,
            }
        });
        *self.timetable.entries() = entries.collect();
        Ok(())
    }

    /// Fires what is due, until it is stopped.
    pub async fn run(&self, stop: CancellationToken) {
        let mut seen = Seen::default();
        loop {
            // Broken off, a step is done or not: whoever takes the schedules up sees which.
            let pause = tokio::select! {
                () = stop.cancelled() => return,
                pause = self.look(&mut seen) => pause,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks at the clock, and fires what is due. Answers when it is to look again.
    async fn look(&self, seen: &mut Seen) -> Duration {
        let now = self.clock.wall();
        if seen.before.is_none_or(|before| now < before) {
            // It was set back, or this is the first look.
            for running in self.timetable.entries().iter_mut() {
                running.look(now);
            }
        }
        seen.before = Some(now);
        let is_sane = plan::is_sane(now);
        if !is_sane && !seen.waits {
            let message = "schedules wait: the clock is before this version of Dunlin was made";
            self.telemetry.log.host(Level::Warn, message);
        }
        seen.waits = !is_sane;
        match is_sane {
            true => self.round(now).await,
            false => PAUSE,
        }
    }

    /// Fires what is due. Answers how long there is nothing to do.
    async fn round(&self, now: i64) -> Duration {
        let due: Vec<usize> = {
            let entries = self.timetable.entries();
            let all = entries.iter().enumerate();
            all.filter(|(_, running)| running.due <= now)
                .map(|(index, _)| index)
                .collect()
        };
        for index in due {
            let done = self.catch_up(index, now).await;
            let running = &mut self.timetable.entries()[index];
            running.look(now);
            running.is_stuck = done.is_none();
            if running.is_stuck {
                let pause = i64::try_from(PAUSE.as_millis()).unwrap_or(i64::MAX);
                running.due = now.saturating_add(pause);
            }
        }
        let next = self
            .timetable
            .entries()
            .iter()
            .map(|running| running.due)
            .min();
        let left = next.unwrap_or(i64::MAX).saturating_sub(now).max(1);
        Duration::from_millis(left.unsigned_abs()).min(LOOK)
    }

    /// Does all that a schedule has to do by now. None: it could not.
    async fn catch_up(&self, index: usize, now: i64) -> Option<()> {
        let (entry, mark) = {
            let running = &self.timetable.entries()[index];
            (running.entry.clone(), running.mark)
        };
        for planned in plan(&entry, mark, now).steps {
            self.step(index, &entry, planned, now).await?;
        }
        Some(())
    }

    async fn step(&self, index: usize, entry: &Entry, planned: Planned, now: i64) -> Option<()> {
        let (mark, is_stuck) = {
            let running = &self.timetable.entries()[index];
            (running.mark, running.is_stuck)
        };
        let to = planned.scheduled;
        let step = Step {
            from: mark.at,
            to,
            send: (planned.kind == Kind::Fires).then(|| {
                let planned = Planned {
                    missed: planned.missed.saturating_add(mark.skipped),
                    ..planned
                };
                let event = entry.event(&planned, now);
                (queue_of(&entry.function), event.into_message())
            }),
            skips: planned.missed,
            alone: entry.schedule.overlap == Overlap::Skip,
            begins: planned.kind == Kind::Begins,
        };
        let stepped = self.queues.step(entry.mark_name(), step).await;
        let name = format!("{} of {}", entry.schedule.name, entry.function);
        let warn = |message: String| self.telemetry.log.host(Level::Warn, &message);
        let cannot = |why: String| {
            if !is_stuck {
                warn(format!("the schedule {name} cannot fire now: {why}"));
            }
        };
        let skipped = mark.skipped.saturating_add(planned.missed);
        let moved = match (stepped, planned.kind) {
            (Ok(Stepped::Yes), Kind::Fires) => Mark {
                at: to,
                skipped: 0,
                ..mark
            },
            (Ok(Stepped::Yes), Kind::Skips) => Mark {
                at: to,
                skipped,
                ..mark
            },
            (Ok(Stepped::Yes), Kind::Begins) => Mark {
                begun: to,
                at: to,
                skipped: 0,
            },
            (Ok(Stepped::Held), _) => {
                warn(format!(
                    "the schedule {name} skips a fire: the event of the last one is not done"
                ));
                Mark {
                    at: to,
                    skipped: skipped.saturating_add(1),
                    ..mark
                }
            }
            // Others have taken it up meanwhile.
            (Ok(Stepped::Stale), _) => Mark { at: to, ..mark },
            (Ok(Stepped::Full), _) => {
                cannot("the backlog of its function is full".to_owned());
                return None;
            }
            // The host says so itself, once.
            (Err(QueueError::Write(WriteError::Full)), _) => return None,
            (Err(error), _) => {
                cannot(error.to_string());
                return None;
            }
        };
        self.timetable.entries()[index].mark = moved;
        Some(())
    }
}

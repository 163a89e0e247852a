//! What feeds functions beside HTTP: their own events, queues and schedules. Follows what
//! is deployed.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::function::{FunctionName, FunctionSpec, QueueMapping};
use crate::queue::{QueueError, QueueName, ReceiptKey};
use crate::trigger::asynchronous::{AsyncWorker, Deliveries, Surroundings};
use crate::trigger::feed::{self, Feeds};
use crate::trigger::queue::QueueWorker;
use crate::trigger::schedule::{Entry, Scheduler};

/// A task that is told to stop, and then ends by itself.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        // It may have panicked; then there is nothing left to end.
        let _ = self.task.await;
    }
}

/// What feeds functions.
pub(super) struct Triggers {
    feeds: Feeds,
    around: Surroundings,
    receipts: ReceiptKey,
    scheduler: Arc<Scheduler>,
    schedules: Option<Running>,
    deliveries: Deliveries,
    events: HashMap<FunctionName, Running>,
    /// Those whose records are posted.
    posting: HashMap<FunctionName, Running>,
    mappings: HashMap<(FunctionName, QueueName), (QueueMapping, Running)>,
}

impl Triggers {
    pub(super) fn new(
        feeds: Feeds,
        deliveries: Deliveries,
        around: Surroundings,
        receipts: ReceiptKey,
        scheduler: Scheduler,
    ) -> Self {
        Self {
            feeds,
            around,
            receipts,
            scheduler: Arc::new(scheduler),
            schedules: None,
            deliveries,
            events: HashMap::new(),
            posting: HashMap::new(),
            mappings: HashMap::new(),
        }
    }

    /// Makes what feeds functions what the configuration says. What is the same goes on;
    /// what a function has received already is worked on to its end.
    pub(super) async fn follow(&mut self, config: &Config) -> Result<(), QueueError> {
        let functions = config.functions.iter().map(|spec| (&spec.name, spec));
        let functions: HashMap<&FunctionName, &FunctionSpec> = functions.collect();
        let deployed = |name: &FunctionName| functions.get(name);
        for name in keys(&self.events) {
            if deployed(&name).is_none()
                && let Some(running) = self.events.remove(&name)
            {
                running.end().await;
            }
        }
        for name in keys(&self.posting) {
            if !deployed(&name).is_some_and(|spec| spec.events.posts())
                && let Some(running) = self.posting.remove(&name)
            {
                running.end().await;
            }
        }
        for (name, queue) in keys(&self.mappings) {
            let declared = deployed(&name)
                .and_then(|spec| spec.queues.iter().find(|mapping| mapping.queue == queue));
            let key = (name, queue);
            let goes_on = self
                .mappings
                .get(&key)
                .is_some_and(|(now, _)| declared == Some(now));
            if !goes_on && let Some((_, running)) = self.mappings.remove(&key) {
                running.end().await;
            }
        }
        for spec in &config.functions {
            self.start(spec);
        }
        // Last: should it fail, everything else follows all the same.
        if let Some(schedules) = self.schedules.take() {
            schedules.end().await;
        }
        let entries = config.functions.iter().flat_map(entries).collect();
        let taken_up = self.scheduler.take_up(entries).await;
        self.schedules = Some(self.start_schedules());
        taken_up
    }

    fn start(&mut self, spec: &FunctionSpec) {
        let name = &spec.name;
        if !self.events.contains_key(name) {
            let worker = AsyncWorker::new(name.clone(), self.around.clone());
            let stop = CancellationToken::new();
            let task = feed::run(self.feeds.clone(), Arc::new(worker), stop.clone());
            let task = tokio::spawn(task);
            self.events.insert(name.clone(), Running { stop, task });
        }
        if spec.events.posts() && !self.posting.contains_key(name) {
            let stop = CancellationToken::new();
            let task = self.deliveries.clone().run(name.clone(), stop.clone());
            let task = tokio::spawn(task);
            self.posting.insert(name.clone(), Running { stop, task });
        }
        for mapping in spec.queues.iter().filter(|mapping| mapping.enabled) {
            let key = (name.clone(), mapping.queue.clone());
            if self.mappings.contains_key(&key) {
                continue;
            }
            let (mapping, around) = (mapping.clone(), self.around.clone());
            let receipts = self.receipts.clone();
            let worker = QueueWorker::new(name.clone(), mapping.clone(), around, receipts);
            let stop = CancellationToken::new();
            let task = feed::run(self.feeds.clone(), Arc::new(worker), stop.clone());
            let task = tokio::spawn(task);
            self.mappings.insert(key, (mapping, Running { stop, task }));
        }
    }

    fn start_schedules(&self) -> Running {
        let stop = CancellationToken::new();
        let (scheduler, stopped) = (Arc::clone(&self.scheduler), stop.clone());
        let task = tokio::spawn(async move { scheduler.run(stopped).await });
        Running { stop, task }
    }

    /// Nothing more is received or fired. What was received goes on.
    pub(super) async fn stop(self) {
        let mappings = self.mappings.into_values().map(|(_, running)| running);
        let all = self.schedules.into_iter().chain(self.events.into_values());
        let all = all.chain(self.posting.into_values());
        let all: Vec<Running> = all.chain(mappings).collect();
        all.iter().for_each(|running| running.stop.cancel());
        for running in all {
            running.end().await;
        }
    }
}

fn keys<K: Clone, V>(map: &HashMap<K, V>) -> Vec<K> {
    map.keys().cloned().collect()
}

fn entries(spec: &FunctionSpec) -> impl Iterator<Item = Entry> {
    let function = spec.name.clone();
    spec.schedules.iter().map(move |schedule| Entry {
        function: function.clone(),
        schedule: schedule.clone(),
    })
}

//! What the API says of the schedules that are in force.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::store::Clock;
use crate::trigger::schedule::{Listed, Timetable};

/// The schedules, and what time it is.
pub struct Schedules {
    /// Those that are in force.
    pub timetable: Timetable,
    /// By which they fire.
    pub clock: Arc<dyn Clock>,
}

impl Schedules {
    /// All of them as JSON, with the fires that come next. Times are RFC 3339 in the zone of
    /// the schedule.
    #[must_use]
    pub fn list(&self) -> Value {
        let listed = self.timetable.list(self.clock.wall());
        let listed: Vec<Value> = listed.iter().map(shown).collect();
        json!({ "Schedules": listed })
    }
}

fn shown(Listed { entry, last, next }: &Listed) -> Value {
    let schedule = &entry.schedule;
    let zone = &schedule.zone;
    let next: Vec<String> = next.iter().map(|time| zone.rfc3339(*time)).collect();
    let state = match schedule.enabled {
        true => "enabled",
        false => "paused",
    };
    json!({
        "Function": entry.function.as_str(),
        "Name": schedule.name,
        "Expression": schedule.when.to_string(),
        "Zone": zone.name(),
        "State": state,
        "Last": last.map(|time| zone.rfc3339(time)),
        "Next": next,
    })
}

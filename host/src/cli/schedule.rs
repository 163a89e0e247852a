//! `dunlin schedule`

use clap::Subcommand;
use serde_json::{Value, json};

use super::Exit;
use super::client::HostArgs;

/// Look at the schedules of a running host.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the schedules, with the fires that come next
    ///
    /// One line each: FUNCTION, SCHEDULE, expression, zone, `enabled` or `paused`, the last
    /// fire that was sent or skipped, and the next five; `-` for none. Times are those of the
    /// schedule's zone, before its jitter.
    Ls {
        /// Print a JSON object a line instead
        #[arg(long)]
        json: bool,
        /// The host
        #[command(flatten)]
        host: HostArgs,
    },
}

/// Does it, and prints what comes of it.
///
/// # Errors
/// If the host is not reached, or refuses.
pub async fn run(args: &Args) -> anyhow::Result<Exit> {
    let Command::Ls { json, host } = &args.command;
    let answer = host.operate("Dunlin.ListSchedules", &json!({})).await?;
    let schedules = answer["Schedules"].as_array().cloned().unwrap_or_default();
    let text: String = match json {
        true => schedules.iter().map(|each| format!("{each}\n")).collect(),
        false => schedules.iter().map(line).collect(),
    };
    super::print(text.as_bytes())?;
    Ok(Exit::Ok)
}

/// Its cells, with tabs between them.
fn line(schedule: &Value) -> String {
    let cells = [
        "Function",
        "Name",
        "Expression",
        "Zone",
        "State",
        "Last",
        "Next",
    ];
    let cells = cells.map(|name| cell(&schedule[name]));
    format!("{}\n", cells.join("\t"))
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join(" "),
        // An expression may have any white space.
        other => {
            let words = other.as_str().unwrap_or_default().split_whitespace();
            words.collect::<Vec<_>>().join(" ")
        }
    };
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_is_a_line_whatever_is_in_its_expression() {
        let schedule = json!({
            "Function": "f",
            "Name": "nightly",
            "Expression": "0  3\t* * *",
            "Zone": "UTC",
            "State": "enabled",
            "Last": null,
            "Next": ["2026-03-01T03:00:00Z", "2026-03-02T03:00:00Z"],
        });
        assert_eq!(
            line(&schedule),
            "f\tnightly\t0 3 * * *\tUTC\tenabled\t-\t2026-03-01T03:00:00Z 2026-03-02T03:00:00Z\n"
        );
        let paused = json!({ "Function": "f", "Last": "2026-03-01T03:00:00Z", "Next": [] });
        assert!(line(&paused).ends_with("\t2026-03-01T03:00:00Z\t-\n"));
    }
}

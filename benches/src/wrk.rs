//! Running `wrk`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::proc;

/// Prints what `wrk` knows at the end, for programs. A script without `request` and `response`
/// leaves the path of the requests as it is.
const REPORT: &str = r#"
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nREPORT {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.timeout, e.status))
end
"#;

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Wrk<'a> {
    /// The program.
    pub program: &'a Path,
    /// A folder for the script.
    pub scratch: &'a Path,
    /// Connections at once, from one thread.
    pub connections: usize,
}

/// What a run of `wrk` saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Answers.
    pub requests: u64,
    /// Answers per second.
    pub rate: f64,
    /// Half of the requests were as fast.
    pub p50: Duration,
    /// 99 % of them were.
    pub p99: Duration,
    /// What part of one core `wrk` itself used.
    pub busy: f64,
}

impl Wrk<'_> {
    /// Loads `url` and the paths beside it in turn, for so long. Any error fails.
    ///
    /// With more than one path, `wrk` builds each request in Lua, which costs it time.
    pub fn run(&self, url: &str, paths: &[&str], time: Duration) -> Result<Seen> {
        let script = self.scratch.join("wrk.lua");
        let mut text = String::from(REPORT);
        if paths.len() > 1 {
            let list: Vec<String> = paths.iter().map(|path| format!("{path:?}")).collect();
            text.push_str(&format!(
                "local paths = {{ {} }}\nlocal next = 0\n\
                 function request()\n  next = next % #paths + 1\n  \
                 return wrk.format(nil, paths[next])\nend\n",
                list.join(", ")
            ));
        }
        std::fs::write(&script, text).context("cannot write the script for wrk")?;
        let before = proc::cpu_of_children()?;
        let began = Instant::now();
        let output = Command::new(self.program)
            .arg("-t1")
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", time.as_secs().max(1)))
            .arg("-s")
            .arg(&script)
            .arg(format!("{url}{}", paths.first().copied().unwrap_or("/")))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {} (Debian: wrk)", self.program.display()))?;
        let wall = began.elapsed();
        let cpu = proc::cpu_of_children()? - before;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let Some(report) = stdout.lines().find_map(|line| line.strip_prefix("REPORT ")) else {
            bail!(
                "wrk ended without a report: {stdout}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        let report: Value = serde_json::from_str(report)?;
        let number = |key: &str| report[key].as_u64().unwrap_or(u64::MAX);
        for error in ["connect", "read", "write", "timeout", "status"] {
            ensure!(
                number(error) == 0,
                "{} requests to {url} ended with errors of the kind `{error}`: {report}",
                number(error)
            );
        }
        let requests = number("requests");
        ensure!(requests > 0, "no request to {url} was answered");
        Ok(Seen {
            requests,
            rate: requests as f64 * 1e6 / number("micros") as f64,
            p50: Duration::from_micros(number("p50")),
            p99: Duration::from_micros(number("p99")),
            busy: cpu.as_secs_f64() / wall.as_secs_f64(),
        })
    }
}

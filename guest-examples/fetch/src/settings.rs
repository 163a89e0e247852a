//! What the manifest says in `[function.fetch.config]`.

use std::time::Duration;

use dunlin_sdk::{Error, config};

pub(crate) struct Settings {
    /// Without a slash at its end.
    pub(crate) upstream: String,
    /// An entry that is younger is answered without asking.
    pub(crate) max_age: Duration,
    /// An entry that is younger stands in for an upstream that fails.
    pub(crate) max_stale: Duration,
}

impl Settings {
    pub(crate) fn read() -> Result<Self, Error> {
        let upstream = value("upstream")?;
        let has_host = ["http://", "https://"].iter().any(|scheme| {
            let rest = upstream.strip_prefix(scheme);
            rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#']))
        });
        if !has_host {
            let expected = "a URL such as `https://example.com`, without a query";
            return Err(format!("config `upstream` is {upstream:?}, not {expected}").into());
        }
        Ok(Self {
            upstream: upstream.trim_end_matches('/').to_owned(),
            max_age: duration("max-age")?,
            max_stale: duration("max-stale")?,
        })
    }
}

fn value(name: &str) -> Result<String, Error> {
    config::get(name).ok_or_else(|| format!("config `{name}` is missing").into())
}

fn duration(name: &str) -> Result<Duration, Error> {
    let text = value(name)?;
    parse(&text).ok_or_else(|| {
        let expected = "a number with `s`, `m`, `h` or `d` after it, such as `60s`";
        format!("config `{name}` is {text:?}, not {expected}").into()
    })
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    // A sign is none of a number of ours.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = is_number.then(|| number.parse().ok())??;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("0s", 0),
            ("60s", 60),
            ("5m", 300),
            ("2h", 7_200),
            ("1d", 86_400),
        ] {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        let wrong = ["", "s", "60", "+1s", "-1s", "1.5h", "1 s", "1µ", "1ms"];
        for text in wrong.into_iter().chain(["18446744073709551615d"]) {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let error = || Settings::read().map(|_| ()).unwrap_err().to_string();
        assert_eq!(error(), "config `upstream` is missing");
        for wrong in [
            "example.com",
            "ftp://example.com",
            "https://",
            "http://a/?b",
        ] {
            config::set("upstream", wrong);
            let expected = format!("config `upstream` is {wrong:?}, not a URL");
            assert!(error().starts_with(&expected), "{}", error());
        }
        config::set("upstream", "https://example.com/v1/");
        assert_eq!(error(), "config `max-age` is missing");
        config::set("max-age", "60s");
        config::set("max-stale", "60");
        assert!(
            error().starts_with("config `max-stale` is \"60\", not"),
            "{}",
            error()
        );
        config::set("max-stale", "1h");
        let settings = Settings::read().unwrap();
        assert_eq!(settings.upstream, "https://example.com/v1");
        assert_eq!(settings.max_age, Duration::from_secs(60));
        assert_eq!(settings.max_stale, Duration::from_secs(3_600));
    }
}

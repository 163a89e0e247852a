//! One field of a cron expression: lists of values, names, ranges and steps.

use super::invalid::InvalidExpression;
use super::local::FIRST_YEAR;

/// Whose reading of ranges and steps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `5/15` is from 5 to the end, and ranges may go on past it: `22-2`, `FRI-MON`.
    Aws,
    /// Neither.
    Crontab,
}

/// What a field may hold.
pub(super) struct Field {
    /// As errors call it.
    pub(super) name: &'static str,
    pub(super) min: u16,
    pub(super) max: u16,
    /// Names of the values, from `min` on.
    pub(super) names: &'static [&'static str],
    pub(super) dialect: Dialect,
    /// What to write there.
    pub(super) remedy: &'static str,
}

/// What a field holds.
pub(super) struct Values {
    pub(super) list: Vec<u16>,
    /// A `*` or a step is among it.
    pub(super) by_interval: bool,
}

pub(super) const MONTHS: &[&str] = &[
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
pub(super) const WEEKDAYS: &[&str] = &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The fields that AWS and crontab share, but for the dialect.
pub(super) struct Common {
    pub(super) minutes: Field,
    pub(super) hours: Field,
    pub(super) month: Field,
}

pub(super) const fn common(dialect: Dialect) -> Common {
    Common {
        minutes: Field {
            name: "minutes",
            min: 0,
            max: 59,
            names: &[],
            dialect,
            remedy: "use 0 to 59, `*`, lists, ranges and steps",
        },
        hours: Field {
            name: "hours",
            min: 0,
            max: 23,
            names: &[],
            dialect,
            remedy: "use 0 to 23, `*`, lists, ranges and steps",
        },
        month: Field {
            name: "month",
            min: 1,
            max: 12,
            names: MONTHS,
            dialect,
            remedy: "use 1 to 12 or JAN to DEC, `*`, lists, ranges and steps",
        },
    }
}

impl Field {
    /// Reads a whole field.
    pub(super) fn parse(&self, text: &str) -> Result<Values, InvalidExpression> {
        let mut values = Values {
            list: Vec::new(),
            by_interval: false,
        };
        for item in text.split(',') {
            self.item(item, &mut values)?;
        }
        Ok(values)
    }

    fn item(&self, item: &str, into: &mut Values) -> Result<(), InvalidExpression> {
        if item.is_empty() {
            return Err(self.invalid(item, "an empty entry in a list"));
        }
        let (body, step) = match item.split_once('/') {
            Some((body, step)) => (body, Some(self.step(item, step)?)),
            None => (item, None),
        };
        let (low, high) = if body == "*" {
            (self.min, self.max)
        } else if let Some((low, high)) = body.split_once('-') {
            (self.value(low)?, self.value(high)?)
        } else {
            let low = self.value(body)?;
            match (step, self.dialect) {
                (None, _) => (low, low),
                (Some(_), Dialect::Aws) => (low, self.max),
                (Some(step), Dialect::Crontab) => {
                    let remedy = format!("say where it ends, as `{body}-{}/{step}`", self.max);
                    let what = "a step without a range";
                    return Err(InvalidExpression::new(self.name, item, what, remedy));
                }
            }
        };
        into.by_interval |= body == "*" || step.is_some();
        let step = usize::from(step.unwrap_or(1));
        if low <= high {
            into.list.extend((low..=high).step_by(step));
        } else if self.wraps() {
            let around = (low..=self.max).chain(self.min..=high);
            into.list.extend(around.step_by(step));
        } else {
            return Err(InvalidExpression::new(
                self.name,
                item,
                "a range that ends before it begins",
                "begin with the lower value, or write two ranges, as `22-23,0-4`",
            ));
        }
        Ok(())
    }

    /// Years do not come again.
    fn wraps(&self) -> bool {
        self.dialect == Dialect::Aws && self.min != FIRST_YEAR.unsigned_abs()
    }

    /// A step over more than the whole field would fire once and look like more.
    fn step(&self, item: &str, text: &str) -> Result<u16, InvalidExpression> {
        let most = self.max - self.min + 1;
        number(text)
            .filter(|step| (1..=most).contains(step))
            .ok_or_else(|| {
                InvalidExpression::new(
                    self.name,
                    item,
                    format!("no step between 1 and {most}"),
                    self.remedy,
                )
            })
    }

    /// Reads a number or a name.
    pub(super) fn value(&self, text: &str) -> Result<u16, InvalidExpression> {
        let named = (self.min..)
            .zip(self.names)
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        if let Some((value, _)) = named {
            return Ok(value);
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            let what = if self.names.is_empty() {
                "no number"
            } else {
                "neither a number nor a name"
            };
            return Err(self.invalid(text, what));
        }
        let Self { min, max, .. } = self;
        number(text)
            .filter(|value| (min..=max).contains(&value))
            .ok_or_else(|| self.invalid(text, format!("not between {min} and {max}")))
    }

    pub(super) fn invalid(&self, value: &str, what: impl Into<String>) -> InvalidExpression {
        InvalidExpression::new(self.name, value, what, self.remedy)
    }
}

/// Digits and nothing else: `parse` alone would take a sign.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

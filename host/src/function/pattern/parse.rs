//! From a pattern's text to what it asks for.

use serde_json::{Map, Value};

use super::operators::{Network, Range, Test, TextTest, Wildcard, fold};
use super::{Fields, InvalidPattern, Node, Pattern};

const OR: &str = "$or";
/// Those that are documented. As fields' names in `$or` they are refused, as by EventBridge:
/// who writes them there thinks of tests.
const OPERATORS: [&str; 8] = [
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
];

/// How much of a value an error shows, in characters.
const SHOWN: usize = 60;

pub(super) fn fields(text: &str) -> Result<Fields, InvalidPattern> {
    let mut parser = Parser {
        path: "$".to_owned(),
        depth: 0,
        tests: 0,
    };
    let length = text.chars().count();
    if length > Pattern::MAX_LENGTH {
        return Err(parser.error(format!(
            "it has {length} characters, and {} are allowed; split it into several patterns",
            Pattern::MAX_LENGTH
        )));
    }
    let value = serde_json::from_str(text)
        .map_err(|error| parser.error(format!("`{}` is not JSON: {error}", clip(text))))?;
    match value {
        Value::Object(object) => parser.object(&object, false),
        other => Err(parser.wrong(&other, "is not an object; write `{\"field\": [tests]}`")),
    }
}

/// Where we are, and what was met so far.
struct Parser {
    path: String,
    depth: usize,
    tests: usize,
}

type Parsed<T> = Result<T, InvalidPattern>;

impl Parser {
    fn error(&self, problem: String) -> InvalidPattern {
        InvalidPattern {
            path: self.path.clone(),
            problem,
        }
    }

    /// An error that shows a value.
    fn wrong(&self, value: &Value, what: &str) -> InvalidPattern {
        self.error(format!("`{}` {what}", clip(&value.to_string())))
    }

    /// One step down: into a field, or an element.
    fn at<T>(&mut self, step: &str, then: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        let length = self.path.len();
        self.path.push_str(step);
        let parsed = then(self)?;
        self.path.truncate(length);
        Ok(parsed)
    }

    fn object(&mut self, object: &Map<String, Value>, in_or: bool) -> Parsed<Fields> {
        if object.is_empty() {
            return Err(self.error("`{}` asks for nothing; name a field, or leave it out".into()));
        }
        self.depth += 1;
        if self.depth > Pattern::MAX_DEPTH {
            return Err(self.error(format!(
                "more than {} objects stand in each other; name fields further out",
                Pattern::MAX_DEPTH
            )));
        }
        let mut fields = Fields::default();
        for (name, value) in object {
            self.at(&format!(".{}", name.escape_debug()), |parser| {
                if name == OR {
                    fields.either = parser.either(value)?;
                    return Ok(());
                }
                if in_or && OPERATORS.contains(&name.as_str()) {
                    return Err(parser.error(format!(
                        "`{name}` cannot name a field in `{OR}`; write the field around it: \
                         `{{\"field\": [{{\"{name}\": …}}]}}`"
                    )));
                }
                let node = match value {
                    Value::Object(object) => Node::Object(parser.object(object, in_or)?),
                    Value::Array(list) => Node::Tests(parser.tests(list)?),
                    other => {
                        return Err(parser.wrong(
                            other,
                            "is neither an object nor a list of tests; put it in `[` and `]`",
                        ));
                    }
                };
                fields.named.push((name.clone(), node));
                Ok(())
            })?;
        }
        self.depth -= 1;
        Ok(fields)
    }

    fn either(&mut self, value: &Value) -> Parsed<Vec<Fields>> {
        let list = match value {
            Value::Array(list) if list.len() >= 2 => list,
            other => return Err(self.wrong(other, "is not a list of two objects or more")),
        };
        let branches = list.iter().enumerate().map(|(index, branch)| {
            self.at(&format!("[{index}]"), |parser| match branch {
                Value::Object(object) => parser.object(object, true),
                other => Err(parser.wrong(other, "is not an object; write `{\"field\": [tests]}`")),
            })
        });
        branches.collect()
    }

    fn tests(&mut self, list: &[Value]) -> Parsed<Vec<Test>> {
        if list.is_empty() {
            return Err(
                self.error("`[]` matches nothing; write a test, or leave the field out".to_owned())
            );
        }
        let tests = list.iter().enumerate();
        let tests = tests.map(|(index, test)| {
            self.at(&format!("[{index}]"), |parser| {
                parser.count()?;
                match test {
                    Value::Object(object) => parser.operator(test, object),
                    Value::Array(_) => {
                        Err(parser.wrong(test, "is a list in a list; take its `[` and `]` away"))
                    }
                    exact => Ok(Test::Exactly(exact.clone())),
                }
            })
        });
        tests.collect()
    }

    fn count(&mut self) -> Parsed<()> {
        self.tests += 1;
        if self.tests > Pattern::MAX_TESTS {
            return Err(self.error(format!(
                "it has more than {} tests; split it into several patterns",
                Pattern::MAX_TESTS
            )));
        }
        Ok(())
    }

    /// The only entry of an object that is an operator.
    fn only<'a>(
        &self,
        value: &Value,
        object: &'a Map<String, Value>,
    ) -> Parsed<(&'a str, &'a Value)> {
        let mut entries = object.iter();
        match (entries.next(), entries.next()) {
            (Some((name, operand)), None) => Ok((name, operand)),
            _ => Err(self.wrong(
                value,
                "is not one operator; write an object for each, of which one must match",
            )),
        }
    }

    fn operator(&mut self, value: &Value, object: &Map<String, Value>) -> Parsed<Test> {
        let (name, operand) = self.only(value, object)?;
        self.at(&format!(".{}", name.escape_debug()), |parser| match name {
            "exists" => match operand {
                Value::Bool(true) => Ok(Test::Exists),
                Value::Bool(false) => Ok(Test::Absent),
                other => Err(parser.wrong(other, "is neither true nor false")),
            },
            "anything-but" => parser.anything_but(operand),
            "numeric" => parser.numeric(operand).map(Test::Numeric),
            "cidr" => {
                let text = parser.text(operand)?;
                let network: Result<Network, _> = text.parse();
                let wrong = |what| {
                    let what = format!("{what}; write a network like `10.0.0.0/8` or `fd00::/8`");
                    parser.wrong(operand, &what)
                };
                network.map(Test::Cidr).map_err(wrong)
            }
            "prefix" | "suffix" => {
                let (text, ignore_case) = match operand {
                    Value::Object(object) => match parser.only(operand, object)? {
                        ("equals-ignore-case", text) => (parser.text(text)?, true),
                        _ => {
                            return Err(parser.wrong(
                                operand,
                                "is neither a text nor `{\"equals-ignore-case\": text}`",
                            ));
                        }
                    },
                    text => (parser.text(text)?, false),
                };
                Ok(Test::Text(match (name, ignore_case) {
                    ("prefix", true) => TextTest::PrefixIgnoreCase(fold(text)),
                    ("prefix", false) => TextTest::Prefix(text.to_owned()),
                    (_, true) => TextTest::SuffixIgnoreCase(fold(text)),
                    (_, false) => TextTest::Suffix(text.to_owned()),
                }))
            }
            "equals-ignore-case" | "wildcard" => parser.text_test(name, operand).map(Test::Text),
            _ => Err(parser.error(format!(
                "there is no operator `{}`; use one of {}",
                clip(name),
                OPERATORS.join(", ")
            ))),
        })
    }

    fn text<'a>(&self, value: &'a Value) -> Parsed<&'a str> {
        let text = value.as_str();
        text.ok_or_else(|| self.wrong(value, "is not a text; put it in quotes"))
    }

    /// An operator that takes a text and nothing else.
    fn text_test(&self, name: &str, operand: &Value) -> Parsed<TextTest> {
        let text = self.text(operand)?;
        Ok(match name {
            "prefix" => TextTest::Prefix(text.to_owned()),
            "suffix" => TextTest::Suffix(text.to_owned()),
            "equals-ignore-case" => TextTest::IgnoreCase(fold(text)),
            _ => {
                let wildcard: Result<Wildcard, _> = text.parse();
                TextTest::Wildcard(wildcard.map_err(|what| {
                    self.wrong(operand, &format!("{what}; write `\\\\*` for an asterisk"))
                })?)
            }
        })
    }

    fn anything_but(&mut self, operand: &Value) -> Parsed<Test> {
        if let Value::Object(object) = operand {
            let (name, operand) = self.only(operand, object)?;
            return self.at(&format!(".{}", name.escape_debug()), |parser| {
                if !matches!(
                    name,
                    "prefix" | "suffix" | "equals-ignore-case" | "wildcard"
                ) {
                    return Err(parser.error(format!(
                        "`{}` cannot follow `anything-but`; use prefix, suffix, \
                         equals-ignore-case or wildcard",
                        clip(name)
                    )));
                }
                let tests = parser.each(operand, |parser, text| match (name, text.as_str()) {
                    ("prefix" | "suffix", Some("")) => Err(parser.wrong(
                        text,
                        "is in every text, so nothing could match; write a longer one",
                    )),
                    _ => parser.text_test(name, text),
                });
                tests.map(Test::NoText)
            });
        }
        let first = operand
            .as_array()
            .map_or(Some(operand), |list| list.first());
        if first.is_some_and(Value::is_number) {
            let numbers = self.each(operand, |parser, value| match value {
                Value::Number(number) => Ok(number.clone()),
                other => {
                    Err(parser.wrong(other, "is not a number as the one before it; use two tests"))
                }
            });
            return numbers.map(Test::NoNumber);
        }
        let texts = self.each(operand, |parser, value| match value {
            Value::String(text) => Ok(TextTest::Exactly(text.clone())),
            other => Err(parser.wrong(
                other,
                "cannot follow `anything-but`; use a text, a number, or a list of either",
            )),
        });
        texts.map(Test::NoText)
    }

    /// The elements of a list, or what is none by itself.
    fn each<T>(
        &mut self,
        value: &Value,
        mut parse: impl FnMut(&Self, &Value) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        match value {
            Value::Array(list) if list.is_empty() => {
                Err(self.error("`[]` excludes nothing; write a value".to_owned()))
            }
            Value::Array(list) => {
                let elements = list.iter().enumerate().map(|(index, element)| {
                    self.at(&format!("[{index}]"), |parser| {
                        parser.count()?;
                        parse(parser, element)
                    })
                });
                elements.collect()
            }
            single => Ok(vec![parse(self, single)?]),
        }
    }

    fn numeric(&self, operand: &Value) -> Parsed<Range> {
        const FORM: &str = "write `[\"=\", 1]`, `[\">\", 1]` or `[\">=\", 1, \"<\", 2]`";
        let wrong = |what: &str| self.wrong(operand, &format!("{what}; {FORM}"));
        let Value::Array(list) = operand else {
            return Err(wrong("is not a list"));
        };
        if list.is_empty() || list.len() > 4 || list.len() % 2 == 1 {
            return Err(wrong("is not one comparison or two, each with its number"));
        }
        let mut range = Range::default();
        for pair in list.chunks(2) {
            let number = pair[1].as_f64();
            let number = number.ok_or_else(|| wrong("compares with what is not a number"))?;
            match pair[0].as_str() {
                Some("=") if list.len() == 2 => {
                    range.bottom = Some((number, true));
                    range.top = Some((number, true));
                }
                // The lower bound first, as EventBridge wants it.
                Some(sign @ (">" | ">=")) if range.bottom.is_none() && range.top.is_none() => {
                    range.bottom = Some((number, sign == ">="));
                }
                Some(sign @ ("<" | "<=")) if range.top.is_none() => {
                    range.top = Some((number, sign == "<="));
                }
                _ => {
                    return Err(wrong(
                        "has a comparison that is unknown, or not in its place",
                    ));
                }
            }
        }
        match (range.bottom, range.top) {
            (Some((bottom, _)), Some((top, _))) if list.len() == 4 && bottom >= top => {
                Err(wrong("has a lower bound that is not below the upper one"))
            }
            _ => Ok(range),
        }
    }
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

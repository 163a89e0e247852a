//! Looks words up in a list of 5 000, the Roman numerals in this one.
//!
//! `GET /dictionary/{word}` answers what it means, or 404; `GET /dictionary?prefix=mcm`
//! the words that begin so, a line each and twenty at most.
//!
//! The list is part of the component. It is indexed once, at deploy: each instance
//! begins with the index in its memory, as if it had just made it.

use std::collections::HashMap;
use std::sync::OnceLock;

use dunlin_sdk::{Request, Response};

/// A word and its meaning in each line.
const LIST: &str = include_str!("../words.txt");
/// So many words of a search.
const FOUND: usize = 20;

static DICTIONARY: OnceLock<Dictionary> = OnceLock::new();

/// The list, indexed.
struct Dictionary {
    meanings: HashMap<&'static str, &'static str>,
    /// In alphabetical order, to search by their beginning.
    words: Vec<&'static str>,
}

impl Dictionary {
    fn new(list: &'static str) -> Result<Self, String> {
        let pairs = list.lines().map(|line| {
            let pair = line.split_once(' ');
            pair.ok_or_else(|| format!("`{line}` has no meaning"))
        });
        let meanings: HashMap<_, _> = pairs.collect::<Result<_, _>>()?;
        let mut words: Vec<_> = meanings.keys().copied().collect();
        words.sort_unstable();
        Ok(Self { meanings, words })
    }

    fn beginning_with(&self, prefix: &str) -> impl Iterator<Item = &'static str> {
        let first = self.words.partition_point(|word| *word < prefix);
        let from = self.words[first..].iter().copied();
        from.take_while(move |word| word.starts_with(prefix))
    }
}

/// Runs at deploy. A list that is wrong is refused there.
#[dunlin_sdk::init]
fn index() -> Result<(), String> {
    let dictionary = Dictionary::new(LIST)?;
    DICTIONARY
        .set(dictionary)
        .map_err(|_| "it ran before".into())
}

#[dunlin_sdk::http]
fn look_up(request: Request) -> Response {
    let dictionary = DICTIONARY.get().expect("`index` ran before any event");
    match request.param("word") {
        Some(word) => match dictionary.meanings.get(word) {
            Some(meaning) => Response::text(format!("{word}: {meaning}\n")),
            None => {
                Response::text(format!("`{word}` is not in the dictionary\n")).with_status(404_u16)
            }
        },
        None => {
            let prefix = request.query_param("prefix").unwrap_or_default();
            let found = dictionary.beginning_with(&prefix).take(FOUND);
            Response::text(found.flat_map(|word| [word, "\n"]).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_by_themselves_and_by_their_beginning() {
        let dictionary = Dictionary::new(LIST).unwrap();
        assert_eq!(dictionary.words.len(), 5000);
        assert_eq!(dictionary.meanings["mcmxcix"], "1999");
        let found: Vec<_> = dictionary.beginning_with("mmmmcmxcvi").collect();
        assert_eq!(found, ["mmmmcmxcvi", "mmmmcmxcvii", "mmmmcmxcviii"]);
        assert_eq!(dictionary.beginning_with("y").count(), 0);
    }

    #[test]
    fn a_line_without_a_meaning_is_an_error() {
        let error = Dictionary::new("i 1\nii").err();
        assert_eq!(error.as_deref(), Some("`ii` has no meaning"));
    }
}

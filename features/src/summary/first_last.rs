//! The first and the last of something by event time, whatever order it came in.

use super::Summary;
use super::text::{heap_bytes, put_text};
use super::varint::{Reader, put, put_signed};

/// The texts with the earliest and the latest event time. Of several at one time the first is the least text and the last
/// the greatest, so that nothing depends on who came first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FirstLast(Option<Ends>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ends {
    first: (i64, String),
    last: (i64, String),
}

impl FirstLast {
    /// Sees one text at its event time, ms since the Unix epoch.
    pub fn insert(&mut self, event_ms: i64, text: &str) {
        match &mut self.0 {
            None => {
                let only = (event_ms, text.to_owned());
                self.0 = Some(Ends { first: only.clone(), last: only });
            }
            Some(ends) => {
                if (event_ms, text) < (ends.first.0, ends.first.1.as_str()) {
                    ends.first = (event_ms, text.to_owned());
                }
                if (event_ms, text) > (ends.last.0, ends.last.1.as_str()) {
                    ends.last = (event_ms, text.to_owned());
                }
            }
        }
    }

    /// The first one and its event time, ms.
    #[must_use]
    pub fn first(&self) -> Option<(i64, &str)> {
        self.0.as_ref().map(|ends| (ends.first.0, ends.first.1.as_str()))
    }

    /// The last one and its event time, ms.
    #[must_use]
    pub fn last(&self) -> Option<(i64, &str)> {
        self.0.as_ref().map(|ends| (ends.last.0, ends.last.1.as_str()))
    }
}

impl Summary for FirstLast {
    const NAME: &'static str = "first and last";

    fn merge(&mut self, other: &Self) {
        for (event_ms, text) in [other.first(), other.last()].into_iter().flatten() {
            self.insert(event_ms, text);
        }
    }

    // version, 0, or version, 1, first time, first text, ms from it to the last time, last text
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.0.is_some()));
        if let Some(Ends { first, last }) = &self.0 {
            put_signed(out, first.0);
            put_text(out, &first.1);
            put(out, u128::from(last.0.abs_diff(first.0)));
            put_text(out, &last.1);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        read(reader).map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |ends| heap_bytes(&ends.first.1) + heap_bytes(&ends.last.1))
    }
}

fn read(reader: &mut Reader<'_>) -> Option<Option<Ends>> {
    match reader.byte()? {
        0 => Some(None),
        1 => {
            let first = (reader.signed()?, reader.text()?);
            let last = (first.0.checked_add_unsigned(reader.u64()?)?, reader.text()?);
            (first <= last).then_some(Some(Ends { first, last }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_one_time_the_least_text_is_first_and_the_greatest_last() {
        let mut ends = FirstLast::default();
        [(5, "b"), (5, "a"), (5, "c")].iter().for_each(|(ms, text)| ends.insert(*ms, text));
        assert_eq!((ends.first(), ends.last()), (Some((5, "a")), Some((5, "c"))));
        ends.insert(-1, "z");
        assert_eq!(ends.first(), Some((-1, "z")));
    }
}

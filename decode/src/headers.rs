//! Headers of a message, end to end, each a name and a value behind their lengths: a run of messages has them in one
//! piece of memory, and a sealed letter can hold them.

/// Those of one message, in the order of its topic's list; no name comes twice. Not shown: they may be anybody's secret.
#[derive(Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} headers", self.iter().count())
    }
}

impl<'a> Headers<'a> {
    /// What [`Headers::pack`] wrote.
    #[must_use]
    pub fn of(packed: &'a [u8]) -> Self {
        Self(packed)
    }

    /// Adds one to those that lie at the end of `out`.
    pub fn pack(name: &str, value: &[u8], out: &mut Vec<u8>) {
        for part in [name.as_bytes(), value] {
            // No message of Kafka's is so long.
            out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            out.extend_from_slice(part);
        }
    }

    /// As [`Headers::pack`] wrote them.
    #[must_use]
    pub fn packed(self) -> &'a [u8] {
        self.0
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Names and values.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = std::str::from_utf8(part(&mut rest)?).ok()?;
            Some((name, part(&mut rest)?))
        })
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (part, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = behind;
    Some(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Headers;

    proptest! {
        #[test]
        fn what_is_packed_is_there_and_what_is_cut_off_does_not_panic(
            headers in prop::collection::vec((".*", prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            cut in any::<usize>(),
        ) {
            let mut packed = Vec::new();
            for (name, value) in &headers {
                Headers::pack(name, value, &mut packed);
            }
            let read: Vec<_> = Headers::of(&packed).iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&read, &headers);
            let cut = Headers::of(&packed[..cut % (packed.len() + 1)]);
            prop_assert!(cut.iter().count() <= headers.len());
        }
    }
}

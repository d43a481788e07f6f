//! Summaries with a setting, such as edges or a half-life: those of different settings do not add up.

use super::Summary;
use super::varint::Reader;

/// Nothing yet, something of one setting, or things of different settings, which stay apart whatever comes next. The last
/// one absorbs, so that merging stays associative, and reading a figure off it gives none and not a wrong number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OfOneSetting<T> {
    /// Nothing was seen.
    #[default]
    Nothing,
    /// All of it had this setting.
    One(T),
    /// Settings differed.
    Mixed,
}

/// What can have a setting.
pub trait Set: Clone + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// Name of the summary in error messages.
    const NAME: &'static str;
    #[doc(hidden)]
    fn has_the_setting_of(&self, other: &Self) -> bool;
    #[doc(hidden)]
    fn merge(&mut self, other: &Self);
    #[doc(hidden)]
    fn put(&self, out: &mut Vec<u8>);
    #[doc(hidden)]
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
    #[doc(hidden)]
    fn heap_bytes(&self) -> usize;
}

impl<T: Set> Summary for OfOneSetting<T> {
    const NAME: &'static str = T::NAME;

    fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Mixed, _) => {}
            (Self::Nothing, other) => *self = other.clone(),
            (Self::One(mine), Self::One(theirs)) if mine.has_the_setting_of(theirs) => mine.merge(theirs),
            (Self::One(_), _) => *self = Self::Mixed,
        }
    }

    // version, then 0, or 1 and what it is, or 2
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::One(one) => {
                out.push(1);
                one.put(out);
            }
            Self::Mixed => out.push(2),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.byte()? {
            0 => Some(Self::Nothing),
            1 => T::read(reader).map(Self::One),
            2 => Some(Self::Mixed),
            _ => None,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Self::Nothing
    }

    fn heap_bytes(&self) -> usize {
        if let Self::One(one) = self { one.heap_bytes() } else { 0 }
    }
}

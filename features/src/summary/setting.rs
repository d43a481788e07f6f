//! Summaries with a setting, such as edges or a half-life: those of different settings do not add up.

use super::varint::Reader;

/// Nothing yet, something of one setting, or things of different settings, which stay apart whatever comes next. The last
/// one absorbs, so that merging stays associative, and reading a figure off it is an error and not a wrong number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum OfOneSetting<T> {
    #[default]
    Nothing,
    One(T),
    Mixed,
}

/// What can have a setting.
pub(crate) trait Set: Sized {
    fn has_the_setting_of(&self, other: &Self) -> bool;
    fn merge(&mut self, other: &Self);
    fn put(&self, out: &mut Vec<u8>);
    fn read(reader: &mut Reader<'_>) -> Option<Self>;
}

impl<T: Set + Clone> OfOneSetting<T> {
    pub(crate) fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::Mixed, _) => {}
            (Self::Nothing, other) => *self = other.clone(),
            (Self::One(mine), Self::One(theirs)) if mine.has_the_setting_of(theirs) => mine.merge(theirs),
            (Self::One(_), _) => *self = Self::Mixed,
        }
    }

    // 0, or 1 and what it is, or 2
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::One(one) => {
                out.push(1);
                one.put(out);
            }
            Self::Mixed => out.push(2),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        match reader.byte()? {
            0 => Some(Self::Nothing),
            1 => T::read(reader).map(Self::One),
            2 => Some(Self::Mixed),
            _ => None,
        }
    }
}

//! Objects whose members are columns: the message itself, and structs inside it.

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;

use super::column::{Column, NotTaken, Scratch};
use super::cursor::{Broken, Cursor, Text};
use super::unknown::Unknown;

/// No column.
const NONE: u16 = u16::MAX;

/// What to do with a value whose type is not its column's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The message is a dead letter.
    #[default]
    DeadLetter,
    /// The value becomes null, and is counted.
    Null,
    /// The value is kept where the column can hold it without loss (see [`super::JsonDecoder`]); else dead letter.
    Widen,
}

/// A value that its column did not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) column: u16,
    pub(super) why: NotTaken,
}

/// Columns by the names of an object's members.
#[derive(Debug)]
pub(super) struct Object {
    columns: Vec<Column>,
    names: Names,
    /// Of the row at hand; mostly empty.
    conflicts: Vec<Conflict>,
    /// Where members that no column takes are counted.
    unknown: Option<Unknown>,
}

impl Object {
    /// `None` when a field has a type that no JSON value is read as. `nested` integers are exact.
    pub(super) fn new(fields: &Fields, nested: bool) -> Option<Self> {
        let columns = fields.iter().map(|field| Column::new(field, nested)).collect::<Option<Vec<_>>>()?;
        Some(Self { columns, names: Names::new(fields)?, conflicts: Vec::new(), unknown: None })
    }

    /// Counts members that no column takes, except those of these names.
    pub(super) fn count_unknown<'n>(&mut self, except: impl IntoIterator<Item = &'n str>) {
        let fields = std::mem::take(&mut self.names.names).into_iter();
        self.names = Names::of(fields.chain(except.into_iter().map(|name| name.as_bytes().into())));
        self.unknown = Some(Unknown::default());
    }

    /// What was counted; none where nothing is counted.
    pub(super) fn unknown(&mut self) -> Option<&mut Unknown> {
        self.unknown.as_mut()
    }

    /// Takes the members of the object at the cursor, which stands on its brace, as slot `row` of the columns.
    pub(super) fn push(&mut self, row: usize, cursor: &mut Cursor<'_>, scratch: &mut Scratch) -> Result<(), NotTaken> {
        self.read(row, cursor, scratch, |_, _, _, _| false)?;
        match self.conflicts.pop() {
            None => Ok(()),
            Some(_) => Err(NotTaken::Conflict),
        }
    }

    /// As [`Object::push`], but conflicts are left for the caller to look at. `mend` is asked first: it may take the
    /// value in another way, from the place in the text that is given to it.
    pub(super) fn read(
        &mut self,
        row: usize,
        cursor: &mut Cursor<'_>,
        scratch: &mut Scratch,
        mut mend: impl FnMut(&mut Column, u16, &mut Cursor<'_>, &mut Scratch) -> bool,
    ) -> Result<(), Broken> {
        self.conflicts.clear();
        cursor.advance(1);
        let mut previous = NONE;
        loop {
            match cursor.next_member()? {
                b'"' => {}
                b'}' => {
                    cursor.advance(1);
                    return Ok(());
                }
                _ => return Err(Broken::NotJson),
            }
            let name = cursor.at();
            let found = self.names.find(previous, cursor, &mut scratch.text)?;
            previous = found;
            cursor.colon()?;
            let Some(column) = self.columns.get_mut(usize::from(found)) else {
                if found == NONE
                    && let Some(unknown) = &mut self.unknown
                    && unknown.meet()
                {
                    let mut again = cursor.clone();
                    again.go_back(name);
                    unknown.name(text_of(again.string(&mut scratch.text)?, &scratch.text));
                }
                cursor.skip_value(&mut scratch.text, &mut scratch.nesting)?;
                continue;
            };
            if column.len() > row {
                // Named twice: the last one counts, whatever the one before was.
                column.truncate(row);
            } else {
                column.pad(row);
            }
            if !self.conflicts.is_empty() {
                self.conflicts.retain(|conflict| conflict.column != found);
            }
            let start = cursor.at();
            match column.push(cursor, scratch) {
                Ok(()) => {}
                Err(NotTaken::Broken(broken)) => return Err(broken),
                Err(why) => {
                    column.truncate(row);
                    cursor.go_back(start);
                    cursor.peek();
                    if !mend(column, found, cursor, scratch) {
                        column.truncate(row);
                        cursor.go_back(start);
                        cursor.skip_value(&mut scratch.text, &mut scratch.nesting)?;
                        self.conflicts.push(Conflict { column: found, why });
                    }
                }
            }
        }
    }

    /// Values of the row read last that no column took.
    pub(super) fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    pub(super) fn truncate(&mut self, len: usize) {
        for column in &mut self.columns {
            column.truncate(len);
        }
    }

    /// All columns with `len` slots each; empty afterwards.
    pub(super) fn finish(&mut self, fields: &Fields, len: usize) -> Vec<ArrayRef> {
        self.columns.iter_mut().zip(fields).map(|(column, field)| column.finish(field.data_type(), len)).collect()
    }
}

fn text_of<'a>(text: Text<'a>, scratch: &'a [u8]) -> &'a [u8] {
    match text {
        Text::Plain(plain) => plain,
        Text::Unescaped => scratch,
    }
}

/// Finds columns by name, and behind them names that are passed over on purpose. Senders mostly write their members in one
/// order, so the column that followed last time is tried first: one comparison of bytes, nothing hashed.
#[derive(Debug)]
struct Names {
    /// Each name with its closing quote; none for a name that JSON has to escape.
    quoted: Vec<Quoted>,
    names: Vec<Box<[u8]>>,
    /// Their numbers, which are those of the columns, by the length of the names.
    by_length: Vec<Vec<u16>>,
    /// What followed each name last; the last element is for the start, and for names that are none of ours.
    followed: Vec<u16>,
}

impl Names {
    /// `None` when there are more fields than we have numbers for.
    fn new(fields: &Fields) -> Option<Self> {
        let names = Self::of(fields.iter().map(|field| field.name().as_bytes().into()));
        (names.names.len() == fields.len()).then_some(names)
    }

    /// As many of the names as we have numbers for.
    fn of(names: impl Iterator<Item = Box<[u8]>>) -> Self {
        let names: Vec<Box<[u8]>> = names.take(usize::from(NONE)).collect();
        let mut by_length = vec![Vec::new(); names.iter().map(|name| name.len() + 1).max().unwrap_or(0)];
        for (number, name) in (0..NONE).zip(&names) {
            by_length[name.len()].push(number);
        }
        let quoted = names.iter().map(|name| Quoted::new(name)).collect();
        let followed = vec![NONE; names.len() + 1];
        Self { quoted, names, by_length, followed }
    }

    /// The number of the name at the cursor, which stands on the opening quote, or `NONE`; the cursor moves past it.
    #[inline]
    fn find(&mut self, previous: u16, cursor: &mut Cursor<'_>, scratch: &mut Vec<u8>) -> Result<u16, Broken> {
        let slot = usize::from(previous).min(self.followed.len() - 1);
        let guess = self.followed[slot];
        if let Some(quoted) = self.quoted.get(usize::from(guess))
            && quoted.starts(&cursor.rest()[1..])
        {
            cursor.advance(1 + quoted.len);
            return Ok(guess);
        }
        let name = text_of(cursor.string(scratch)?, scratch);
        let same_length = self.by_length.get(name.len()).map(Vec::as_slice).unwrap_or_default();
        let found = same_length.iter().copied().find(|column| *self.names[usize::from(*column)] == *name);
        let found = found.unwrap_or(NONE);
        self.followed[slot] = found;
        Ok(found)
    }
}

/// A name and its closing quote, in words of eight bytes: short comparisons are not worth a call.
#[derive(Debug)]
struct Quoted {
    words: Box<[u64]>,
    /// Which bytes of the last word count.
    mask: u64,
    len: usize,
}

impl Quoted {
    fn new(name: &[u8]) -> Self {
        if name.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
            return Self { words: Box::default(), mask: 0, len: 0 };
        }
        let quoted = [name, b"\""].concat();
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        };
        let last = (quoted.len() - 1) % 8 + 1;
        Self { words: quoted.chunks(8).map(word).collect(), mask: u64::MAX >> (64 - 8 * last), len: quoted.len() }
    }

    /// Does `text` start with the name and its quote? Near the end of a text the answer may be a needless no.
    #[inline]
    fn starts(&self, text: &[u8]) -> bool {
        let Some(text) = text.get(..self.words.len() * 8) else { return false };
        let (Some((last, words)), Some((end, chunks))) =
            (self.words.split_last(), text.as_chunks::<8>().0.split_last())
        else {
            return false;
        };
        words.iter().zip(chunks).all(|(word, chunk)| *word == u64::from_le_bytes(*chunk))
            && *last == u64::from_le_bytes(*end) & self.mask
    }
}

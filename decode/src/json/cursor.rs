//! A place in the bytes of one JSON text, and the ways to move it on.
//!
//! The grammar is that of arrow-json's tape reader, which is a little wider than JSON: commas between the members of an
//! object or a list may be doubled or missing, control characters may stand in strings, and a number that nobody reads
//! is any run of its characters. Nesting costs memory, never stack.

/// Why a text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A byte that cannot stand here.
    NotJson,
    /// The text ends in the middle of a value.
    Truncated,
}

/// A string of the text, between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// As it stands in the text.
    Plain(&'a [u8]),
    /// It had escapes: what they mean is in the scratch buffer.
    Unescaped,
}

/// What encloses a value that is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Object,
    List,
}

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte of `word` that equals `byte`; exact up to and including the first such byte.
const fn equal_bytes(word: u64, byte: u8) -> u64 {
    let differs = word ^ (ONES * byte as u64);
    differs.wrapping_sub(ONES) & !differs & HIGHS
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

const fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn go_back(&mut self, at: usize) {
        self.at = at;
    }

    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    #[inline]
    pub(super) fn advance(&mut self, by: usize) {
        self.at += by;
    }

    /// The next byte that is no white space, not yet passed.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !is_space(*byte) {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// As `peek`, past commas too: what comes next among the members of an object or a list.
    #[inline]
    pub(super) fn next_member(&mut self) -> Result<u8, Broken> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !is_space(*byte) && *byte != b',' {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(Broken::Truncated)
    }

    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(b':') => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(Broken::NotJson),
            None => Err(Broken::Truncated),
        }
    }

    /// The rest of a literal whose first byte was seen.
    #[inline]
    pub(super) fn literal(&mut self, literal: &'static [u8]) -> Result<(), Broken> {
        if self.rest().starts_with(literal) {
            self.at += literal.len();
            return Ok(());
        }
        let same = self.rest().iter().zip(literal).take_while(|(one, other)| one == other).count();
        Err(if same == self.rest().len() { Broken::Truncated } else { Broken::NotJson })
    }

    /// The characters of a number. One that ends with the text is truncated: more digits could have come.
    #[inline]
    pub(super) fn number(&mut self) -> Result<&'a [u8], Broken> {
        let start = self.at;
        while let Some(byte) = self.bytes.get(self.at) {
            if !is_of_number(*byte) {
                return Ok(&self.bytes[start..self.at]);
            }
            self.at += 1;
        }
        Err(Broken::Truncated)
    }

    /// The string that starts here, its opening quote included.
    #[inline]
    pub(super) fn string(&mut self, scratch: &mut Vec<u8>) -> Result<Text<'a>, Broken> {
        self.at += 1;
        let start = self.at;
        if self.seek_quote_or_escape()? == b'"' {
            let text = &self.bytes[start..self.at];
            self.at += 1;
            return Ok(Text::Plain(text));
        }
        scratch.clear();
        scratch.extend_from_slice(&self.bytes[start..self.at]);
        self.unescape(scratch)?;
        Ok(Text::Unescaped)
    }

    /// Moves to the next quote or backslash, and says which it is.
    #[inline]
    fn seek_quote_or_escape(&mut self) -> Result<u8, Broken> {
        // Most strings are short: eight bytes at a time without setting anything up.
        while let Some(word) = self.bytes.get(self.at..self.at + 8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            let hits = equal_bytes(word, b'"') | equal_bytes(word, b'\\');
            if hits != 0 {
                self.at += (hits.trailing_zeros() / 8) as usize;
                return Ok(self.bytes[self.at]);
            }
            self.at += 8;
        }
        while let Some(byte) = self.bytes.get(self.at) {
            if matches!(byte, b'"' | b'\\') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        Err(Broken::Truncated)
    }

    /// From the first backslash of a string to behind its closing quote.
    fn unescape(&mut self, out: &mut Vec<u8>) -> Result<(), Broken> {
        loop {
            let start = self.at;
            let found = self.seek_quote_or_escape()?;
            out.extend_from_slice(&self.bytes[start..self.at]);
            self.at += 1;
            if found == b'"' {
                return Ok(());
            }
            let plain = match self.byte()? {
                b'u' => {
                    let character = self.unicode()?;
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
                plain @ (b'"' | b'\\' | b'/') => plain,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                _ => return Err(Broken::NotJson),
            };
            out.push(plain);
        }
    }

    /// What follows `\u`: four hex digits, or a pair of surrogates.
    fn unicode(&mut self) -> Result<char, Broken> {
        let high = self.hex4()?;
        if let Some(character) = char::from_u32(high) {
            return Ok(character);
        }
        for expected in [b'\\', b'u'] {
            if self.byte()? != expected {
                return Err(Broken::NotJson);
            }
        }
        let low = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
            return Err(Broken::NotJson);
        }
        char::from_u32(((high - 0xd800) << 10 | (low - 0xdc00)) + 0x1_0000).ok_or(Broken::NotJson)
    }

    fn hex4(&mut self) -> Result<u32, Broken> {
        let mut value = 0;
        for _ in 0..4 {
            let digit = char::from(self.byte()?).to_digit(16).ok_or(Broken::NotJson)?;
            value = value << 4 | digit;
        }
        Ok(value)
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let byte = self.bytes.get(self.at).copied().ok_or(Broken::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    /// Passes over one value, whatever it is, and checks its grammar. `scratch` and `nesting` are only borrowed room.
    pub(super) fn skip_value(&mut self, scratch: &mut Vec<u8>, nesting: &mut Vec<Within>) -> Result<(), Broken> {
        nesting.clear();
        loop {
            match self.peek().ok_or(Broken::Truncated)? {
                b'"' => {
                    self.string(scratch)?;
                }
                b'-' | b'0'..=b'9' => {
                    self.number()?;
                }
                b'n' => self.literal(b"null")?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'{' => {
                    self.at += 1;
                    nesting.push(Within::Object);
                }
                b'[' => {
                    self.at += 1;
                    nesting.push(Within::List);
                }
                _ => return Err(Broken::NotJson),
            }
            // On to the next value of what encloses this one, and out of everything that ends here.
            loop {
                match nesting.last() {
                    None => return Ok(()),
                    Some(Within::Object) => match self.next_member()? {
                        b'"' => {
                            self.string(scratch)?;
                            self.colon()?;
                            break;
                        }
                        b'}' => {}
                        _ => return Err(Broken::NotJson),
                    },
                    Some(Within::List) => {
                        if self.next_member()? != b']' {
                            break;
                        }
                    }
                }
                self.at += 1;
                nesting.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skip(text: &str) -> Result<usize, Broken> {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.skip_value(&mut Vec::new(), &mut Vec::new()).map(|()| cursor.at())
    }

    #[test]
    fn a_value_ends_where_its_grammar_ends() {
        for (text, end) in [("1 ", 1), (" [1,[2]]x", 8), (r#"{"a":{"b":[]}} {"#, 14), ("nullnull", 4), ("[1 2,,3,]", 9)]
        {
            assert_eq!(skip(text), Ok(end), "{text}");
        }
        for text in ["", "1", "[", r#"{"a""#, r#"{"a":"#, r#""a\"#, r#""\u12"#, "tru", r#""\ud800\"#] {
            assert_eq!(skip(text), Err(Broken::Truncated), "{text}");
        }
        for text in
            ["]", "[}", r"{]", r#"{"a" 1}"#, r#""\x""#, r#""\u12g4""#, r#""\ud800x""#, r#""\udc00\udc00""#, "trux"]
        {
            assert_eq!(skip(text), Err(Broken::NotJson), "{text}");
        }
    }

    #[test]
    fn nesting_uses_no_stack() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(skip(&deep), Err(Broken::Truncated));
    }

    proptest! {
        /// serde_json is the other implementation: every string that it writes is read as what was written.
        #[test]
        fn strings_are_read_as_they_were_meant(text in any::<String>(), behind in "[ -~]{0,12}") {
            let mut json = serde_json::to_string(&text).unwrap();
            let end = json.len();
            json.push_str(&behind);
            let (mut cursor, mut scratch) = (Cursor::new(json.as_bytes()), Vec::new());
            let found = match cursor.string(&mut scratch).unwrap() {
                Text::Plain(plain) => plain.to_vec(),
                Text::Unescaped => scratch,
            };
            prop_assert_eq!(found, text.into_bytes());
            prop_assert_eq!(cursor.at(), end);
        }

        #[test]
        fn what_serde_json_reads_is_passed_over_whole(text in "[\\[\\]{}:,\"a0-9tfn \\\\u]{0,24}") {
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                // A number may end with the text here, which is for the caller to tell.
                let mut cursor = Cursor::new(text.as_bytes());
                let skipped = cursor.skip_value(&mut Vec::new(), &mut Vec::new());
                prop_assert!(matches!(skipped, Ok(()) | Err(Broken::Truncated)), "{:?}", skipped);
            }
        }
    }
}

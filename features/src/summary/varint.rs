//! LEB128 varints, least significant group first, refused unless as short as can be.

pub(crate) fn put(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Zigzag: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, u128::from(((value << 1) ^ (value >> 63)) as u64));
}

/// Zigzag of 128 bits.
pub(crate) fn put_signed_128(out: &mut Vec<u8>, value: i128) {
    put(out, ((value << 1) ^ (value >> 127)) as u128);
}

/// Reads varints off the front of a slice. Every method is `None` on truncated, overlong or too large input.
#[derive(Debug)]
pub struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        let mut value = 0u128;
        for shift in (0..=126).step_by(7) {
            let byte = self.byte()?;
            let group = u128::from(byte & 0x7f);
            if shift == 126 && group > 0b11 {
                return None;
            }
            value |= group << shift;
            if byte & 0x80 == 0 {
                let shortest = byte != 0 || shift == 0;
                return shortest.then_some(value);
            }
        }
        None
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.u128()?.try_into().ok()
    }

    pub(crate) fn signed(&mut self) -> Option<i64> {
        let zigzag = self.u64()?;
        Some(((zigzag >> 1) as i64) ^ -((zigzag & 1) as i64))
    }

    pub(crate) fn signed_128(&mut self) -> Option<i128> {
        let zigzag = self.u128()?;
        Some(((zigzag >> 1) as i128) ^ -((zigzag & 1) as i128))
    }

    pub(crate) fn at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_overlong_zero_is_refused() {
        assert_eq!(Reader(&[0x80, 0x00]).u128(), None);
        assert_eq!(Reader(&[0x00]).u128(), Some(0));
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(value: u128, signed: i64, wide: i128) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put_signed(&mut bytes, signed);
            put_signed_128(&mut bytes, wide);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.u128(), Some(value));
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert_eq!(reader.signed_128(), Some(wide));
            prop_assert!(reader.at_end());
        }
    }
}

//! Which slots of a column hold a value. Nothing is kept while all do, which is the common case.

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::NullBuffer;

#[derive(Debug, Default)]
pub(super) struct Validity {
    len: usize,
    bits: Option<BooleanBufferBuilder>,
}

impl Validity {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn push_valid(&mut self) {
        self.len += 1;
        if let Some(bits) = &mut self.bits {
            bits.append(true);
        }
    }

    pub(super) fn push_nulls(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let len = self.len;
        let bits = self.bits.get_or_insert_with(|| {
            let mut bits = BooleanBufferBuilder::new(len + count);
            bits.append_n(len, true);
            bits
        });
        bits.append_n(count, false);
        self.len += count;
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Some(bits) = &mut self.bits {
            bits.truncate(self.len);
        }
    }

    /// The nulls, if there are any; empty afterwards.
    pub(super) fn finish(&mut self) -> Option<NullBuffer> {
        self.len = 0;
        let bits = self.bits.take()?.build();
        Some(NullBuffer::new(bits)).filter(|nulls| nulls.null_count() > 0)
    }
}

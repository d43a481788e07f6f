//! What a prefix cache would have held: how deep in the order of last use each block lies when it is asked for again.
//!
//! A cache of `c` blocks that evicts what was used least recently holds the `c` blocks on top of that order, whatever `c` is
//! (Mattson, Gecsei, Slutz and Traiger 1970, "Evaluation techniques for storage hierarchies", the inclusion property). So one
//! pass tells for every request what caches of all sizes would have answered: a block at depth `d` is a hit where `c >= d`.
//!
//! The blocks of one request are used from its last to its first, so that a block is never evicted before those that
//! continue it; vLLM frees blocks in that order. Since a block's hash covers all before it, hits are then the beginning of
//! the prompt, at every size.

use std::collections::HashMap;

/// Slots to begin with.
const SLOTS_MIN: usize = 1024;

/// Blocks in the order of their last use. Memory grows with the number of different blocks, time with the logarithm of it.
#[derive(Debug, Default)]
pub struct RecencyStack {
    /// The slot of each block; a later use has a higher one.
    slots: HashMap<i64, usize>,
    /// How many blocks lie in slots up to each: a Fenwick tree, from slot 1.
    lying: Vec<u32>,
    /// The highest slot that was given away.
    last: usize,
}

impl RecencyStack {
    /// How many blocks a cache must have to still hold `block`: 1 for the one that was used last. `None` when it was never
    /// used.
    #[must_use]
    pub fn depth(&self, block: i64) -> Option<u64> {
        let slot = *self.slots.get(&block)?;
        Some((self.slots.len() - self.lying_below(slot)) as u64)
    }

    /// The depth of each block of a prompt before it is served, and then serves it.
    pub fn serve(&mut self, blocks: &[i64]) -> Vec<Option<u64>> {
        let depths = blocks.iter().map(|block| self.depth(*block)).collect();
        for block in blocks.iter().rev() {
            self.touch(*block);
        }
        depths
    }

    fn touch(&mut self, block: i64) {
        if self.last + 1 >= self.lying.len() {
            self.close_gaps();
        }
        self.last += 1;
        if let Some(left) = self.slots.insert(block, self.last) {
            self.add(left, -1);
        }
        self.add(self.last, 1);
    }

    /// Numbers the slots anew, without those that blocks have left, and with as many free ones.
    fn close_gaps(&mut self) {
        let mut blocks: Vec<_> = self.slots.iter().map(|(block, slot)| (*slot, *block)).collect();
        blocks.sort_unstable();
        self.lying = vec![0; (2 * blocks.len()).max(SLOTS_MIN) + 1];
        self.last = blocks.len();
        for (before, (_, block)) in blocks.into_iter().enumerate() {
            self.slots.insert(block, before + 1);
            self.add(before + 1, 1);
        }
    }

    fn add(&mut self, mut slot: usize, by: i32) {
        while slot < self.lying.len() {
            self.lying[slot] = self.lying[slot].wrapping_add_signed(by);
            slot += slot & slot.wrapping_neg();
        }
    }

    fn lying_below(&self, slot: usize) -> usize {
        let (mut slot, mut sum) = (slot - 1, 0);
        while slot > 0 {
            sum += self.lying[slot] as usize;
            slot &= slot - 1;
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_block_of_the_last_prompt_lies_on_top() {
        let mut stack = RecencyStack::default();
        assert_eq!(stack.serve(&[1, 2, 3]), [None, None, None]);
        assert_eq!(stack.serve(&[1, 2, 4]), [Some(1), Some(2), None]);
        // 1, 2, 4 were used after 3.
        assert_eq!(stack.serve(&[3, 1]), [Some(4), Some(1)]);
        assert_eq!(stack.slots.len(), 4);
    }

    /// A cache as an engine keeps it: blocks from the most to the least recently used, cut off at its capacity.
    struct Cache {
        capacity: usize,
        blocks: Vec<i64>,
    }

    impl Cache {
        fn serve(&mut self, blocks: &[i64]) -> Vec<bool> {
            let hits = blocks.iter().map(|block| self.blocks.contains(block)).collect();
            for block in blocks.iter().rev() {
                self.blocks.retain(|held| held != block);
                self.blocks.insert(0, *block);
                self.blocks.truncate(self.capacity);
            }
            hits
        }
    }

    /// Prompts whose blocks name all that comes before them, as hashes of prefixes do.
    fn prompts() -> impl Strategy<Value = Vec<Vec<i64>>> {
        let prompt = prop::collection::vec(0..3_i64, 0..6).prop_map(|choices| {
            choices
                .into_iter()
                .scan(0, |prefix, choice| {
                    *prefix = *prefix * 4 + choice + 1;
                    Some(*prefix)
                })
                .collect()
        });
        prop::collection::vec(prompt, 0..60)
    }

    proptest! {
        #[test]
        fn depths_say_what_a_cache_of_every_size_answers(prompts in prompts(), capacity in 1..40_usize) {
            let (mut stack, mut cache) = (RecencyStack::default(), Cache { capacity, blocks: Vec::new() });
            for prompt in &prompts {
                let within = |depth: Option<u64>| depth.is_some_and(|depth| depth <= capacity as u64);
                let hits: Vec<_> = stack.serve(prompt).into_iter().map(within).collect();
                prop_assert_eq!(&hits, &cache.serve(prompt));
                let first_miss = hits.iter().position(|hit| !hit).unwrap_or(hits.len());
                prop_assert!(hits[first_miss..].iter().all(|hit| !hit), "hits are the beginning of a prompt");
            }
        }

        #[test]
        fn gaps_between_slots_change_nothing(blocks in prop::collection::vec(0..50_i64, 0..6_000)) {
            let (mut stack, mut recent) = (RecencyStack::default(), Vec::new());
            for block in blocks {
                let place = recent.iter().position(|held| *held == block);
                prop_assert_eq!(stack.depth(block), place.map(|place| place as u64 + 1));
                if let Some(place) = place {
                    recent.remove(place);
                }
                recent.insert(0, block);
                stack.touch(block);
            }
        }
    }
}

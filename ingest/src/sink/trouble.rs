//! How long trouble with the tables is borne: bounded by time where storage is in trouble, by number where somebody fences.

use std::time::{Duration, Instant};

/// The first rest; each further one in a row is twice as long.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Times in a row to be fenced, after which it is no race that was lost, but another process that goes on writing.
const FENCED_MAX: u32 = 6;

/// Trouble in a row, with no commit in between.
#[derive(Debug)]
pub(crate) struct Trouble {
    patience: Duration,
    began: Option<Instant>,
    last: Option<Instant>,
    rests: u32,
    fenced: u32,
}

impl Trouble {
    /// None yet.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, began: None, last: None, rests: 0, fenced: 0 }
    }

    /// Storage failed once more. How long to rest before the next attempt; `None` when that is to be given up.
    pub(crate) fn of_storage(&mut self, now: Instant) -> Option<Duration> {
        self.forget_if_old(now);
        let began = *self.began.get_or_insert(now);
        let left = self.patience.saturating_sub(now.saturating_duration_since(began));
        if left.is_zero() {
            return None;
        }
        // The last attempt is made when the time is up, not when a rest happens to end.
        Some(self.rest().min(left))
    }

    /// Another writer came first once more.
    pub(crate) fn of_fencing(&mut self, now: Instant) -> Option<Duration> {
        self.forget_if_old(now);
        self.fenced += 1;
        let rest = self.rest();
        (self.fenced < FENCED_MAX).then_some(rest)
    }

    /// How often it was fenced in a row.
    pub(crate) fn fenced(&self) -> u32 {
        self.fenced
    }

    /// Something was committed.
    pub(crate) fn is_over(&mut self) {
        *self = Self::new(self.patience);
    }

    /// Where nothing comes to be committed, nothing shows that trouble is over. What is long past is not the same trouble.
    fn forget_if_old(&mut self, now: Instant) {
        let is_old = |last: Instant| now.saturating_duration_since(last) > self.patience.max(2 * LONGEST_REST);
        if self.last.is_some_and(is_old) {
            self.is_over();
        }
        self.last = Some(now);
    }

    /// Shorter by up to a half, by chance: processes that failed together should not all come back together.
    fn rest(&mut self) -> Duration {
        let rest = FIRST_REST.saturating_mul(2_u32.saturating_pow(self.rests)).min(LONGEST_REST);
        self.rests += 1;
        rest.mul_f64(0.5 + rand::random::<f64>() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(300);

    /// Fails at once after each rest, and returns the rests.
    fn in_a_row(trouble: &mut Trouble, now: &mut Instant) -> Vec<Duration> {
        let mut rests = Vec::new();
        while let Some(rest) = trouble.of_storage(*now) {
            rests.push(rest);
            *now += rest;
        }
        rests
    }

    #[test]
    fn storage_is_waited_for_by_the_clock() {
        let (mut trouble, began) = (Trouble::new(PATIENCE), Instant::now());
        let mut now = began;
        let rests = in_a_row(&mut trouble, &mut now);
        assert_eq!(now - began, PATIENCE, "neither earlier nor later");
        assert!(rests[0] <= FIRST_REST && rests.iter().all(|rest| *rest <= LONGEST_REST), "{rests:?}");
        assert!((30..80).contains(&rests.len()), "often enough to notice, too rarely to be a burden: {rests:?}");
        assert!(rests[8..].iter().any(|rest| *rest != rests[7]), "processes come back together: {rests:?}");
    }

    #[test]
    fn a_commit_or_a_long_time_ends_trouble() {
        let (mut trouble, mut now) = (Trouble::new(PATIENCE), Instant::now());
        in_a_row(&mut trouble, &mut now);
        trouble.is_over();
        assert!(trouble.of_storage(now).is_some_and(|rest| rest <= FIRST_REST));
        now += PATIENCE * 2;
        assert!(trouble.of_storage(now).is_some_and(|rest| rest <= FIRST_REST), "that was another trouble");
    }

    #[test]
    fn who_is_fenced_again_and_again_gives_up_whatever_the_patience() {
        let (mut trouble, now) = (Trouble::new(PATIENCE), Instant::now());
        let rests = (0..10).map_while(|_| trouble.of_fencing(now)).count();
        assert_eq!((rests, trouble.fenced()), (5, 6));
        assert_eq!(Trouble::new(Duration::ZERO).of_storage(now), None);
        assert!(Trouble::new(Duration::ZERO).of_fencing(now).is_some());
    }
}

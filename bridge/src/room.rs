//! How much one request may become. What a sender writes once, such as a resource, each of its messages repeats, so the size of
//! a request does not bound the memory and the time that its messages take.

/// What is left of it, in bytes: of messages, and of the names that are looked through for each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room(usize);

/// Why a request that could be decoded becomes no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoMessages {
    /// What it says of itself does not hold; the words follow "the body is not a request: ".
    Broken(&'static str),
    /// They would be more than there is room for.
    TooMuch,
}

impl Room {
    pub(crate) const fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), NoMessages> {
        self.0 = self.0.checked_sub(bytes).ok_or(NoMessages::TooMuch)?;
        Ok(())
    }
}

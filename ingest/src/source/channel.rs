//! The channel from the poll thread to the sink: bounded in chunks, and never in news.
//!
//! Chunks are large, so only a few wait, and the poll thread pauses reading when there is no room for another. News is
//! small and rare, and must not wait: a poll thread that stood still until the sink has room would not poll, and the
//! group would throw it out (`max.poll.interval.ms`) while the sink is busy with a long commit. Both keep their order.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Chunk, Event, News};

/// Chunks between the poll thread and the sink.
pub(super) const CHUNKS_WAITING: usize = 4;

/// The poll thread's end.
pub(crate) struct Sender {
    events: mpsc::UnboundedSender<Sent>,
    room: Arc<Semaphore>,
}

/// The sink's end.
pub(crate) struct Arriving(mpsc::UnboundedReceiver<Sent>);

struct Sent {
    event: Event,
    /// Given back when the sink takes the event.
    _room: Option<OwnedSemaphorePermit>,
}

pub(crate) fn channel() -> (Sender, Arriving) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { events: sender, room: Arc::new(Semaphore::new(CHUNKS_WAITING)) }, Arriving(receiver))
}

impl Sender {
    /// Never waits. A sink that has gone is told nothing.
    pub(crate) fn news(&self, news: News) {
        self.events.send(Sent { event: news.into(), _room: None }).ok();
    }

    /// A chunk whose partitions leave: it goes at once, room or not, since what it is followed by must not wait.
    pub(super) fn last(&self, chunk: Chunk) {
        self.events.send(Sent { event: Event::Messages(chunk), _room: None }).ok();
    }

    /// Hands the chunk over if there is room for it, else back.
    pub(super) fn try_chunk(&self, chunk: Chunk) -> Result<(), Chunk> {
        let Ok(room) = self.room.clone().try_acquire_owned() else { return Err(chunk) };
        self.events.send(Sent { event: Event::Messages(chunk), _room: Some(room) }).ok();
        Ok(())
    }

    /// Has the sink gone?
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }
}

impl Arriving {
    /// The next event; `None` when the poll thread has ended and all that it sent has been taken.
    pub(crate) async fn recv(&mut self) -> Option<Event> {
        self.0.recv().await.map(|sent| sent.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_wait_for_room_and_news_never_does() {
        let (sender, mut arriving) = channel();
        for _ in 0..CHUNKS_WAITING {
            sender.try_chunk(Chunk::default()).unwrap();
        }
        assert!(sender.try_chunk(Chunk::default()).is_err(), "a sink that takes nothing would fill the memory");
        // A poll thread that blocked here would not poll.
        sender.news(News::OffsetGone);
        sender.last(Chunk::default());
        for _ in 0..CHUNKS_WAITING {
            assert!(matches!(arriving.recv().await, Some(Event::Messages(_))));
        }
        assert!(matches!(arriving.recv().await, Some(Event::News(News::OffsetGone))), "in the order of sending");
        sender.try_chunk(Chunk::default()).unwrap();
        assert!(matches!(arriving.recv().await, Some(Event::Messages(_))));
        assert!(matches!(arriving.recv().await, Some(Event::Messages(_))));
        drop(sender);
        assert!(arriving.recv().await.is_none());
    }
}

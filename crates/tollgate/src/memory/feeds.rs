//! News of changes, for whoever caches.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker},
};

use tollgate_core::{Change, Changes};

use super::lock;

/// The feeds of all subscribers, which end with the store.
#[derive(Default)]
pub(super) struct Feeds(Mutex<Vec<Weak<Mutex<Feed>>>>);

impl Feeds {
    pub(super) fn subscribe(&self) -> Changes {
        let feed = Arc::new(Mutex::new(Feed::default()));
        let mut feeds = lock(&self.0);
        feeds.retain(|feed| feed.strong_count() > 0);
        feeds.push(Arc::downgrade(&feed));
        Changes::new(Subscription(feed))
    }

    /// Tells all feeds, and wakes their readers when no lock is held any more.
    pub(super) fn tell(&self, change: &Change) {
        let mut readers = Vec::new();
        lock(&self.0).retain(|feed| {
            let Some(feed) = feed.upgrade() else { return false };
            readers.extend(lock(&feed).push(change.clone()));
            true
        });
        readers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Feeds {
    fn drop(&mut self) {
        for feed in lock(&self.0).drain(..).filter_map(|feed| feed.upgrade()) {
            let reader = {
                let mut feed = lock(&feed);
                feed.is_over = true;
                feed.reader.take()
            };
            reader.into_iter().for_each(Waker::wake);
        }
    }
}

/// News that a subscriber has not read yet.
#[derive(Default)]
struct Feed {
    unread: VecDeque<Change>,
    reader: Option<Waker>,
    is_over: bool,
}

/// Past this many unread changes a subscriber is told to forget everything instead.
const MAX_UNREAD: usize = 1_024;

impl Feed {
    /// Keeps a change to be read, and gives back whom to wake.
    fn push(&mut self, change: Change) -> Option<Waker> {
        if self.unread.len() >= MAX_UNREAD {
            self.unread.clear();
            self.unread.push_back(Change::Lost);
        } else {
            self.unread.push_back(change);
        }
        self.reader.take()
    }
}

struct Subscription(Arc<Mutex<Feed>>);

impl futures_core::Stream for Subscription {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        let mut feed = lock(&self.0);
        if let Some(change) = feed.unread.pop_front() {
            return Poll::Ready(Some(change));
        }
        if feed.is_over {
            return Poll::Ready(None);
        }
        feed.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

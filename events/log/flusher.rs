//! The thread that makes commits last: it flushes them in their order, publishes them, and answers who waits for them.
//!
//! Meanwhile the writer packs the next commit. After a failed flush nothing is flushed any more, but the thread goes on
//! to take commits and to tell who waits for them, until the writer has noticed and let go: nobody is left hanging.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use crate::id::Seq;
use crate::limits::LOG_COMMITS_MAX;
use crate::log::batch::{Answer, AppendError};
use crate::log::journal::{Logged, Sealed};
use crate::log::reader::Head;
use crate::log::shared::Shared;
use crate::log::store::{StoreError, guarded};

/// What makes a commit last.
pub(crate) enum Unsynced {
    /// A commit of redb, as a record of its journal.
    Pages(Sealed),
    /// A block of the write-ahead log.
    Block(Logged),
}

impl Unsynced {
    fn persist(&mut self) -> io::Result<()> {
        match self {
            Self::Pages(sealed) => sealed.persist(),
            Self::Block(logged) => logged.persist(),
        }
    }

    fn settle(self) -> io::Result<()> {
        match self {
            Self::Pages(sealed) => sealed.settle(),
            Self::Block(_) => Ok(()),
        }
    }
}

/// A commit on its way to the medium.
pub(crate) struct Commit {
    /// The first position that was free before it.
    pub first: Seq,
    /// What makes it durable, where it is to be durable before it is acknowledged.
    pub unsynced: Option<Unsynced>,
    /// The end of the log with it, unless it wrote nothing.
    pub head: Option<Head>,
    /// Who waits for it, and what they are told when it is durable.
    pub waiting: Vec<(Sender<Answer>, Answer)>,
}

/// Why the log's threads stopped before their end: the first position that is not safe, and what failed.
#[derive(Clone)]
pub(crate) struct Failure {
    pub first: Seq,
    pub source: Arc<StoreError>,
}

/// The writer's hold on the thread.
pub(crate) struct Flusher {
    queue: Option<Sender<Commit>>,
    thread: Option<JoinHandle<Option<Failure>>>,
    alive: Receiver<Infallible>,
}

impl Flusher {
    /// Starts the thread.
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let (queue, commits) = bounded(LOG_COMMITS_MAX - 1);
        let (lives, alive) = bounded(0);
        let thread = thread::Builder::new().name("log-sync".to_owned());
        let thread = thread.spawn(move || run(&shared, &commits, lives))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), alive })
    }

    /// Hands a commit over; blocks while too many are on their way. What a thread that is gone does not take is dropped.
    pub(crate) fn hand(&self, commit: Commit) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(commit);
        }
    }

    /// Never gives anything; disconnected once a flush failed.
    pub(crate) const fn failed(&self) -> &Receiver<Infallible> {
        &self.alive
    }

    /// Whether a flush failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.alive.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Blocks until everything handed over is flushed and published, or a flush failed.
    pub(crate) fn drain(&self, first: Seq) {
        let (answer, answered) = bounded(1);
        self.hand(Commit { first, unsynced: None, head: None, waiting: vec![(answer, Vec::new())] });
        let _ = answered.recv();
    }

    /// Blocks until everything handed over is flushed and answered, and ends the thread; what failed, if anything.
    pub(crate) fn finish(&mut self) -> Option<Failure> {
        drop(self.queue.take());
        self.thread.take().and_then(|thread| thread.join().ok().flatten())
    }
}

fn run(shared: &Shared, commits: &Receiver<Commit>, lives: Sender<Infallible>) -> Option<Failure> {
    let mut lives = Some(lives);
    let mut failure: Option<Failure> = None;
    let mut stop = |first, source| {
        let source = Arc::new(source);
        // The reason is there before anybody is told, so that whoever is told finds it.
        shared.close_after(&source);
        drop(lives.take());
        Failure { first, source }
    };
    for Commit { first, mut unsynced, head, mut waiting } in commits {
        if failure.is_none()
            && let Some(unsynced) = &mut unsynced
            && let Err(source) = guarded(|| unsynced.persist().map_err(StoreError::Io))
        {
            failure = Some(stop(first, source));
        }
        if let Some(failure) = &failure {
            waiting.iter_mut().flat_map(|(_, results)| results).for_each(|result| fail(result, failure));
        } else if let Some(head) = head {
            shared.publish(head);
        }
        for (answer, results) in waiting {
            // A caller may have given up its ticket; its batches are written all the same.
            let _ = answer.send(results);
        }
        if failure.is_none()
            && let Some(unsynced) = unsynced
            && let Err(source) = guarded(|| unsynced.settle().map_err(StoreError::Io))
        {
            failure = Some(stop(head.map_or(first, |head| head.seq.next()), source));
        }
    }
    failure
}

/// Turns an answer that relies on what was not made durable into the failure. Others stand.
pub(crate) fn fail(result: &mut Result<crate::log::batch::Appended, AppendError>, failure: &Failure) {
    let relies_on = match result {
        Ok(appended) => Some(appended.first),
        Err(AppendError::KeyConflict { first, .. }) => Some(*first),
        Err(AppendError::Unexpected { actual, .. }) => *actual,
        Err(
            AppendError::Empty
            | AppendError::TooLarge { .. }
            | AppendError::KeyLength { .. }
            | AppendError::Keys { .. }
            | AppendError::BeingErased { .. }
            | AppendError::SeriesBroken
            | AppendError::Unchecked { .. }
            | AppendError::Io { .. }
            | AppendError::Closed(_),
        ) => None,
    };
    if let Some(first) = relies_on.filter(|first| *first >= failure.first) {
        *result = Err(AppendError::Io { first, source: Arc::clone(&failure.source) });
    }
}

/// An error and its causes in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text.push_str(": ");
        text.push_str(&source.to_string());
        cause = source.source();
    }
    text
}

//! Signs of changed files from the system; where it gives none, the directory is looked through now and then.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::files::is_agent_file;
use super::settle::Sign;

/// Signs that may wait; when there are more, the whole directory is looked through instead.
const SIGNS_QUEUE_MAX: usize = 4_096;

/// Something was seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its name.
    pub(super) name: String,
    /// What it says.
    pub(super) sign: Sign,
}

/// Watches one directory, not those below it. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    signs: Receiver<Seen>,
    missed: Arc<AtomicBool>,
    // Dropping it ends the watch.
    _source: RecommendedWatcher,
}

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no signs of changes")]
pub(super) struct WatchError(#[source] notify::Error);

impl Watcher {
    /// Watches `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self, WatchError> {
        let (sender, signs) = crossbeam_channel::bounded(SIGNS_QUEUE_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        let flag = missed.clone();
        let tell = move |event: notify::Result<Event>| match event {
            Ok(event) => pass_on(&event, &sender, &flag),
            Err(_) => flag.store(true, Ordering::Release),
        };
        let mut source = notify::recommended_watcher(tell).map_err(WatchError)?;
        source.watch(directory, RecursiveMode::NonRecursive).map_err(WatchError)?;
        Ok(Self { signs, missed, _source: source })
    }

    /// The signs, in order.
    pub(super) const fn signs(&self) -> &Receiver<Seen> {
        &self.signs
    }

    /// Whether signs were lost since the last question.
    pub(super) fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }
}

fn pass_on(event: &Event, sender: &Sender<Seen>, missed: &AtomicBool) {
    if event.need_rescan() {
        missed.store(true, Ordering::Release);
    }
    for (index, path) in event.paths.iter().enumerate() {
        let Some(sign) = sign_of(event.kind, index) else { continue };
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if is_agent_file(name) && sender.try_send(Seen { name: name.to_owned(), sign }).is_err() {
            missed.store(true, Ordering::Release);
        }
    }
}

/// What an event says about its path number `index`; `None` when it says nothing about the content.
fn sign_of(kind: EventKind, index: usize) -> Option<Sign> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Sign::Whole),
        // Of a rename with both names the second is the new one.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) if index == 1 => Some(Sign::Whole),
        EventKind::Access(_) => None,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => Some(Sign::Touched),
    }
}

//! Ctrl-C or SIGTERM in a command that has something under way: what is half written is removed, an engine of this process
//! closes its log in order, what a benchmark made is taken away, one line says so, and the process ends. The second signal ends it at once.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError, mpsc};
use std::thread;

use super::feed::{INTERRUPTED, on_interrupt};

/// What a signal finds to be done.
static DUE: Mutex<Due> = Mutex::new(Due::new());
/// Told when an opening has ended.
static OPENED: Condvar = Condvar::new();
/// The signal is waited for from the first thing on that needs it.
static WATCHED: Once = Once::new();

/// What closes something in order, and answers what there is to say about it, if anything.
type Close = Box<dyn FnOnce() -> String + Send>;
/// What there is to say when a signal comes.
type Words = Box<dyn Fn() -> String + Send>;

/// What is to be done before this process may end.
pub(super) struct Due {
    /// Files that are not in their place yet.
    parts: Vec<PathBuf>,
    /// What is open, by the number it was given.
    closers: Vec<(u64, Close)>,
    /// The number of the next one.
    next: u64,
    /// How many are being opened: what opens them cannot be broken off without leaving them half open.
    opening: usize,
    /// What else there is to say then.
    told: Option<Words>,
}

impl Due {
    const fn new() -> Self {
        Self { parts: Vec::new(), closers: Vec::new(), next: 0, opening: 0, told: None }
    }

    /// A file that is removed unless it is taken off the list.
    pub(super) fn add_part(&mut self, part: PathBuf) {
        self.parts.push(part);
    }

    /// Takes a file off the list: it is in its place, or gone.
    pub(super) fn remove_part(&mut self, part: &Path) {
        self.parts.retain(|other| other != part);
    }

    /// Whether a signal would remove this file.
    #[cfg(test)]
    pub(super) fn holds(&self, part: &Path) -> bool {
        self.parts.iter().any(|other| other == part)
    }

    fn add_closer(&mut self, close: Close) -> u64 {
        let number = self.next;
        self.next += 1;
        self.closers.push((number, close));
        number
    }

    fn take_closer(&mut self, number: u64) -> Option<Close> {
        let place = self.closers.iter().position(|(other, _)| *other == number)?;
        Some(self.closers.remove(place).1)
    }

    /// Does what is to be done; what there is to say about it.
    fn settle(&mut self) -> String {
        let mut said = vec!["interrupted".to_owned()];
        let parts = mem::take(&mut self.parts);
        if parts.iter().filter(|part| fs::remove_file(part).is_ok()).count() > 0 {
            said.push("what was half written is removed".to_owned());
        }
        said.extend(mem::take(&mut self.closers).into_iter().rev().map(|(_, close)| close()));
        said.extend(self.told.take().map(|words| words()));
        said.retain(|words| !words.is_empty());
        said.join("; ")
    }
}

/// To be held while a file is made, moved or removed, so that a signal finds those that are there. From now on one is waited for.
pub(super) fn due() -> MutexGuard<'static, Due> {
    WATCHED.call_once(watch);
    lock()
}

fn lock() -> MutexGuard<'static, Due> {
    DUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Something that is being opened. A signal waits until it is there, or could not be opened.
pub(super) struct Opening(());

impl Opening {
    /// Begins: before the first byte is written that only an end in order makes good.
    pub(super) fn begin() -> Self {
        due().opening += 1;
        Self(())
    }

    /// It is there, and `close` closes it.
    pub(super) fn closed_by(self, close: impl FnOnce() -> String + Send + 'static) -> Open {
        // The opening ends behind this: no signal may come between.
        let open = Open::closed_by(close);
        drop(self);
        open
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        lock().opening -= 1;
        OPENED.notify_all();
    }
}

/// Something that is open. It is closed when this is dropped or a signal comes, whichever is first, and once.
pub(super) struct Open(u64);

impl Open {
    /// Something that is there, and that `close` closes.
    pub(super) fn closed_by(close: impl FnOnce() -> String + Send + 'static) -> Self {
        Self(due().add_closer(Box::new(close)))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Held to the end: a signal that comes meanwhile waits, and who comes here after one waits for the process to end.
        let mut due = lock();
        if let Some(close) = due.take_closer(self.0) {
            close();
        }
    }
}

/// What is said besides when a signal comes, as long as this lives.
pub(super) struct Told(());

impl Told {
    /// Says nothing yet.
    pub(super) fn new() -> Self {
        drop(due());
        Self(())
    }

    /// Says what `words` answers, once all is closed, from now on.
    #[expect(clippy::unused_self, reason = "what is said ends with it")]
    pub(super) fn say(&self, words: impl Fn() -> String + Send + 'static) {
        lock().told = Some(Box::new(words));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        lock().told = None;
    }
}

/// Waits for Ctrl-C or SIGTERM, does what is due, and ends this process.
fn watch() {
    let (told, interrupted) = mpsc::channel();
    // Who cannot listen is ended by the signal all the same: the next command writes over what it leaves, and the next start
    // recovers the log.
    if on_interrupt(told, ()).is_err() {
        return;
    }
    thread::spawn(move || {
        if interrupted.recv() != Ok(()) {
            return;
        }
        let mut due = lock();
        if due.opening > 0 {
            say(
                "interrupted; the log is closed in order as soon as it is open: a second signal does not wait",
            );
        }
        while due.opening > 0 {
            due = OPENED.wait(due).unwrap_or_else(PoisonError::into_inner);
        }
        // Held to the end: no file must come into its place, or be begun, meanwhile, and no other end be told.
        say(&due.settle());
        std::process::exit(INTERRUPTED);
    });
}

fn say(words: &str) {
    let mut err = io::stderr();
    // A progress bar may stand on the line.
    let clear = if err.is_terminal() { "\r\u{1b}[2K" } else { "" };
    // There is nobody to tell that nobody can be told.
    let _ = writeln!(err, "{clear}caxton: {words}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::{Due, Opening};

    #[test]
    fn what_is_open_is_closed_and_what_is_half_written_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [half, done, gone] = ["half.part", "done", "gone.part"].map(|name| folder.path().join(name));
        fs::write(&half, "half").unwrap();
        fs::write(&done, "done").unwrap();
        let mut due = Due::new();
        assert_eq!(due.settle(), "interrupted");
        let closed = Arc::new(AtomicU32::new(0));
        let close = |amount| {
            let closed = Arc::clone(&closed);
            Box::new(move || {
                closed.fetch_add(amount, Ordering::SeqCst);
                "the log is closed".to_owned()
            })
        };
        due.add_closer(close(1));
        let second = due.add_closer(close(10));
        drop(due.take_closer(second));
        for part in [&half, &done, &gone] {
            due.add_part(part.clone());
        }
        due.remove_part(&done);
        due.told = Some(Box::new(|| "3 lines are taken".to_owned()));
        let said = "interrupted; what was half written is removed; the log is closed; 3 lines are taken";
        assert_eq!(due.settle(), said);
        assert_eq!(closed.load(Ordering::SeqCst), 1);
        assert!(!half.exists() && done.exists());
        assert_eq!(due.settle(), "interrupted");
    }

    #[test]
    fn what_was_opened_is_closed_once_when_it_is_dropped() {
        let closed = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&closed);
        let open = Opening::begin().closed_by(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            String::new()
        });
        assert_eq!(closed.load(Ordering::SeqCst), 0);
        drop(open);
        assert_eq!(closed.load(Ordering::SeqCst), 1);
    }
}

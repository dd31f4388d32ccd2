//! Panics of redb's over damaged pages: they are caught and told as errors, and nothing else is printed about them.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;
use std::thread;

thread_local! {
    /// In how many calls of [`caught`] this thread is.
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// Runs `read` and catches its panic, of which nothing is printed if it is one of redb's. Every other panic is printed as
/// it would be elsewhere.
pub(crate) fn caught<T>(read: impl FnOnce() -> T) -> thread::Result<T> {
    install();
    CALLS.set(CALLS.get() + 1);
    let done = panic::catch_unwind(AssertUnwindSafe(read));
    CALLS.set(CALLS.get() - 1);
    done
}

/// Puts a hook before that of the process, once.
fn install() {
    static INSTALLED: Once = Once::new();
    // A thread that panics cannot exchange the hook; another one will.
    if INSTALLED.is_completed() || thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !is_expected(panic) {
                print(panic);
            }
        }));
    });
}

fn is_expected(panic: &PanicHookInfo<'_>) -> bool {
    CALLS.get() > 0 && panic.location().is_some_and(|location| is_of_redb(location.file()))
}

/// Whether a source file is one of redb's: its folder is named so in the registry of packages, or among vendored ones.
fn is_of_redb(file: &str) -> bool {
    file.split(['/', '\\']).any(|folder| folder == "redb" || folder.starts_with("redb-"))
}

#[cfg(test)]
mod tests {
    use super::{CALLS, caught, is_of_redb};

    #[test]
    fn only_the_files_of_redb_are_expected_to_panic() {
        for (file, expected) in [
            ("/home/ada/.cargo/registry/src/packages-1949cf8c/redb-4.6.0/src/db.rs", true),
            ("vendor/redb/src/tree_store/btree.rs", true),
            (r"C:\cargo\registry\src\index\redb-4.6.0\src\db.rs", true),
            ("events/log/store.rs", false),
            ("/home/redbird/caxton/events/log/store.rs", false),
        ] {
            assert_eq!(is_of_redb(file), expected, "{file}");
        }
    }

    #[test]
    fn what_panics_is_given_back_and_the_thread_is_no_quieter_after_it() {
        let what = caught(|| caught(|| panic!("a page has no sense")).map_err(|_| "caught"));
        assert_eq!(what.ok(), Some(Err::<(), _>("caught")));
        assert_eq!(CALLS.get(), 0);
    }
}

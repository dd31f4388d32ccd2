//! A data directory made of a backup, whole or up to a point: built beside its place, and put there by one rename.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::open::lock;
use caxton_events::log::{
    BuildError, DirLock, Head, KEYS_FILE, KeysError, LOCK_FILE, LogBuild, OpenError, OrdersError,
    StoredBlock, follow_orders, take_keys,
};
use caxton_events::{Clock, Seq, Timestamp};
use serde::Serialize;

use super::check::{Problem, missing, walk};
use super::disk::{can_be_named, is_plain, sync_tree, write_private};
use super::format::{BackupHead, Manifest, ManifestError, PartKind, read_manifest};
use super::frames::Frame;
use crate::counted::counted;

/// Name of the file that says where a directory came from.
const MARKER_FILE: &str = "restored.json";
/// Name that the configuration of the backup gets: it is not the one in effect unless somebody says so.
const CONFIG_FILE: &str = "restored-config.yaml";

/// How much of the log is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All of it.
    End,
    /// Up to a position.
    Seq(Seq),
    /// What was recorded up to a moment.
    Time(Timestamp),
}

/// How a backup is restored.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// How much of it.
    pub until: Until,
    /// Whether a directory that is not empty is moved aside. Otherwise it is refused.
    pub force: bool,
    /// The id that the log gets when its end is left out: freshly drawn.
    pub new_log_id: [u8; 16],
    /// The file with the keys of what is encrypted, which is in no backup.
    pub keys: Option<PathBuf>,
    /// Now.
    pub at: Timestamp,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The data directory.
    pub dir: PathBuf,
    /// Id of the log in it, hex.
    pub log_id: String,
    /// Id of the log that was backed up, hex; another one when its end was left out.
    pub from_log_id: String,
    /// The end of the log.
    pub head: BackupHead,
    /// The end of the log in the backup.
    pub backup_head: BackupHead,
    /// When it was restored.
    pub at: Timestamp,
    /// Files of agents, the configuration and so on.
    pub files: usize,
    /// Where the directory that was there before went.
    pub aside: Option<PathBuf>,
    /// Whether payloads are encrypted and their keys are not there yet.
    pub keys_missing: bool,
    /// Events without content that the backup has: they were erased after they were backed up, and the order is in it too.
    pub taken_out: u64,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            dir, log_id, from_log_id, head, backup_head, files, aside, keys_missing, taken_out, ..
        } = self;
        write!(
            f,
            "restored {} up to {} and {}; every hash fits\nroot {}",
            dir.display(),
            head.seq,
            counted(*files as u64, "file"),
            head.root
        )?;
        if log_id != from_log_id {
            write!(
                f,
                "\nthe events behind {} up to {} are left out: this is another log, {log_id}, with the past of {from_log_id}",
                head.seq, backup_head.seq
            )?;
        }
        if *taken_out > 0 {
            write!(
                f,
                "\n{taken_out} events are without content here: they were erased after they were backed up"
            )?;
        }
        if let Some(aside) = aside {
            write!(f, "\nwhat was there before is in {}", aside.display())?;
        }
        if *keys_missing {
            write!(
                f,
                "\npayloads of it are encrypted, and {KEYS_FILE} is in no backup: nothing can read it before the newest copy of \
                 that file is there too; restore again with --keys FILE"
            )?;
        }
        Ok(())
    }
}

/// Why nothing was restored. What was in the directory still is.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no backup to be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Parts of the backup are missing, cut short or changed.
    #[error("{} is not whole: {}; restore another backup", dir.display(), listed(problems))]
    NotWhole {
        /// The backup.
        dir: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
    /// The directory is not empty.
    #[error("{} is not empty; name an empty directory, or move what is there aside with --force", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// A directory that is whole cannot get this name.
    #[error(
        "{} is a mount point, a symbolic link or no name, and a restored directory is put in its place by renaming it; name a \
         directory in it, or another one",
        to.display()
    )]
    Unnamable {
        /// The directory.
        to: PathBuf,
    },
    /// Somebody uses the directory that is to be moved aside, or a lock cannot be taken.
    #[error(transparent)]
    Lock(#[from] OpenError),
    /// Another restore to the same directory is under way.
    #[error("another restore to {} is under way; wait for its end", to.display())]
    Underway {
        /// The directory.
        to: PathBuf,
    },
    /// The position is behind the end of the backup.
    #[error("{until} is not in the backup, which ends at {head}; choose a position from 1 to {}", head.0)]
    Beyond {
        /// What was asked for.
        until: Seq,
        /// Where it ends.
        head: Seq,
    },
    /// The moment lies before the first event.
    #[error("nothing was recorded up to {until}; the backup begins later")]
    Before {
        /// What was asked for.
        until: Timestamp,
    },
    /// The log could not be put together.
    #[error("could not restore the log")]
    Build(#[from] BuildError),
    /// The keys of what is encrypted could not be taken.
    #[error("could not take the keys of what is encrypted")]
    Keys(#[from] KeysError),
    /// What was erased after it was backed up could not be taken out of the log.
    #[error("could not take out of the log what was erased after it was backed up")]
    Orders(#[from] OrdersError),
    /// The log does not end as the backup says.
    #[error("the log in the backup ends at {found}, not at {head} with its root; restore another backup")]
    Head {
        /// Where it ends.
        found: Seq,
        /// Where it should.
        head: Seq,
    },
    /// A file or folder could not be used.
    #[error("could not write {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn listed(problems: &[Problem]) -> String {
    let shown: Vec<String> =
        problems.iter().map(|Problem { part, what }| format!("{part}: {what}")).collect();
    shown.join("; ")
}

/// Makes a data directory at `to` of the backup at `from`.
///
/// It is built in a folder beside, checked on the way, and renamed when it is whole: a crash leaves `to` as it was. With
/// [`RestoreOptions::force`], a directory that is there is moved aside and never removed; it is locked until then, and refused
/// while somebody uses it. Only one restore to `to` is made at a time.
///
/// # Errors
///
/// [`RestoreError`]; nothing is left of what was built.
pub fn restore(
    from: &Path,
    to: &Path,
    options: &RestoreOptions,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Restored, RestoreError> {
    let manifest = read_manifest(from)?;
    let problems = missing(from, &manifest);
    if !problems.is_empty() {
        return Err(RestoreError::NotWhole { dir: from.to_owned(), problems });
    }
    let head = manifest.head.seq;
    let whole = match options.until {
        Until::Seq(until) if until > head || until == Seq::ZERO => {
            return Err(RestoreError::Beyond { until, head });
        }
        Until::Seq(until) => until == head,
        Until::Time(until) => until >= manifest.head.recorded_at,
        Until::End => true,
    };
    let taken = is_taken(to).map_err(|source| RestoreError::Io { path: to.to_owned(), source })?;
    // A link to a directory with something in it can be moved aside; what is behind any other is not replaced.
    if !can_be_named(to) || (!taken && to.is_symlink()) {
        return Err(RestoreError::Unnamable { to: to.to_owned() });
    }
    if taken && !options.force {
        return Err(RestoreError::NotEmpty { dir: to.to_owned() });
    }
    // Held until all have their names: a server that started on it meanwhile would go on in what was moved aside.
    let _moved = if taken { Some(lock(to)?) } else { None };
    let beside = beside(to, "restoring");
    let _building = begin_beside(&beside, to)?;
    let built = build(from, &manifest, &beside, (options, whole), progress);
    let done = built.and_then(|mut restored| {
        let put = put_in_place(&beside, to, taken, &mut || Ok(()));
        restored.aside = put.map_err(|source| RestoreError::Io { path: to.to_owned(), source })?;
        to.clone_into(&mut restored.dir);
        Ok(restored)
    });
    if done.is_err() {
        // It has not the name of a data directory; the next attempt removes it as well.
        let _ = discard(&beside);
    }
    done
}

/// The folder that the directory for `to` is built in, locked and with nothing else in it: two that build there would mix. What one
/// left that was killed is removed.
fn begin_beside(beside: &Path, to: &Path) -> Result<DirLock, RestoreError> {
    let locked = lock(beside);
    if matches!(locked, Err(OpenError::Locked { .. })) {
        return Err(RestoreError::Underway { to: to.to_owned() });
    }
    let locked = locked?;
    // One that was left may have been made for others to read.
    let emptied = empty_but(beside, LOCK_FILE)
        .and_then(|()| fs::set_permissions(beside, Permissions::from_mode(0o700)));
    emptied.map_err(|source| RestoreError::Io { path: beside.to_owned(), source })?;
    Ok(locked)
}

fn build(
    from: &Path,
    manifest: &Manifest,
    dir: &Path,
    (options, whole): (&RestoreOptions, bool),
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Restored, RestoreError> {
    let own = u128::from_str_radix(&manifest.log_id, 16).unwrap_or_default().to_be_bytes();
    let log_id = if whole { own } else { options.new_log_id };
    let (head, has_sealed) = build_log(from, manifest, dir, (log_id, options.until), progress)?;
    if let Some(keys) = &options.keys {
        take_keys(keys, own, dir, log_id)?;
    }
    if whole && BackupHead::from(head) != manifest.head {
        return Err(RestoreError::Head { found: head.seq, head: manifest.head.seq });
    }
    if let (Until::Time(until), Seq::ZERO) = (options.until, head.seq) {
        return Err(RestoreError::Before { until });
    }
    let taken_out = follow_orders(dir, Arc::new(Moment(options.at)))?;
    let files = copy_files(from, manifest, dir)?;
    let restored = Restored {
        dir: dir.to_owned(),
        log_id: format!("{:032x}", u128::from_be_bytes(log_id)),
        from_log_id: manifest.log_id.clone(),
        head: head.into(),
        backup_head: manifest.head.clone(),
        at: options.at,
        files,
        aside: None,
        keys_missing: has_sealed && options.keys.is_none(),
        taken_out,
    };
    let io = |source: io::Error| RestoreError::Io { path: dir.join(MARKER_FILE), source };
    let marker = serde_json::json!({
        "from_log_id": restored.from_log_id, "log_id": restored.log_id, "head": restored.head,
        "backup_head": restored.backup_head, "at": restored.at,
    });
    let text = format!("{marker:#}\n");
    write_private(&dir.join(MARKER_FILE), text.as_bytes()).and_then(|()| sync_tree(dir)).map_err(io)?;
    Ok(restored)
}

/// A clock that stands.
struct Moment(Timestamp);

impl Clock for Moment {
    fn now(&self) -> Timestamp {
        self.0
    }
}

fn build_log(
    from: &Path,
    manifest: &Manifest,
    dir: &Path,
    (log_id, until): ([u8; 16], Until),
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<(Head, bool), RestoreError> {
    let mut log = LogBuild::begin(dir, log_id)?;
    log.forked_from(manifest.forks.clone());
    let mut last = match until {
        Until::Seq(until) => until,
        Until::End | Until::Time(_) => manifest.head.seq,
    };
    for (part, _) in manifest.runs() {
        let mut failed = None;
        let walked = walk(from, part, &mut |frame| {
            let added = match frame {
                Frame::Block(block) => add(&mut log, block, until, &mut last),
                Frame::Key(key, row) => log.key(key, row, last),
                Frame::Begin(_) | Frame::File(..) | Frame::End(_) => {
                    return Err("it holds what no run holds".to_owned());
                }
            };
            progress(log.head().seq, last);
            added.map_err(|error| {
                let told = error.to_string();
                failed = Some(error);
                told
            })
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        walked.map_err(|what| {
            let problems = vec![Problem { part: part.path.clone(), what }];
            RestoreError::NotWhole { dir: from.to_owned(), problems }
        })?;
    }
    let has_sealed = log.has_sealed();
    Ok((log.finish()?, has_sealed))
}

/// Adds a block as far as it is wanted; `last` is the last position wanted, as far as it is known.
fn add(log: &mut LogBuild, block: &StoredBlock, until: Until, last: &mut Seq) -> Result<(), BuildError> {
    if let Until::Time(moment) = until
        && block.first <= *last
    {
        let good = log.head().seq;
        let within = block.last_until(moment).map_err(|source| BuildError::Block { good, source })?;
        let end = block.last().map_err(|source| BuildError::Block { good, source })?;
        if within < end {
            *last = within;
        }
    }
    if block.first > *last { Ok(()) } else { log.block(block.clone(), *last).map(|_| ()) }
}

/// Copies everything that is no part of the log; how many files that are.
fn copy_files(from: &Path, manifest: &Manifest, dir: &Path) -> Result<usize, RestoreError> {
    let mut count = 0;
    for part in manifest.parts.iter().filter(|part| part.kind != PartKind::Log) {
        let path = from.join(&part.path);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RestoreError::Io { path, source }
        };
        let wrong = |what: &str| RestoreError::NotWhole {
            dir: from.to_owned(),
            problems: vec![Problem { part: part.path.clone(), what: what.to_owned() }],
        };
        let content = fs::read(&path).map_err(io(&path))?;
        if blake3::hash(&content).to_string() != part.blake3 {
            return Err(wrong("its content was changed"));
        }
        if !is_plain(&part.name) {
            return Err(wrong("its name leads out of the folder"));
        }
        let to = match part.kind {
            PartKind::Agent => dir.join("agents").join(&part.name),
            PartKind::Config => dir.join(CONFIG_FILE),
            PartKind::Format | PartKind::Key | PartKind::Log => dir.join(&part.name),
        };
        fs::create_dir_all(to.parent().unwrap_or(dir)).map_err(io(&to))?;
        write_private(&to, &content).map_err(io(&to))?;
        count += 1;
    }
    Ok(count)
}

/// Whether something is in the way.
fn is_taken(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the new directory its name; where the one before went. Between the two renames of a directory that is moved aside a
/// crash leaves both under other names, and none is lost. `step` comes before each change of a name: what it fails with is
/// taken for the end of the process.
fn put_in_place(
    beside: &Path,
    to: &Path,
    taken: bool,
    step: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Option<PathBuf>> {
    let aside = if taken { Some(free_name(to)) } else { None };
    step()?;
    // An empty directory is replaced by the rename that follows.
    if let Some(aside) = &aside {
        fs::rename(to, aside)?;
        step()?;
    }
    if let Err(error) = fs::rename(beside, to) {
        if let Some(aside) = &aside {
            fs::rename(aside, to)?;
        }
        return Err(error);
    }
    step()?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(aside)
}

/// The first free name of `dir.before-restore-1`, `-2`, ….
fn free_name(dir: &Path) -> PathBuf {
    let mut number = 1_u32;
    loop {
        let path = beside(dir, &format!("before-restore-{number}"));
        if !path.exists() {
            return path;
        }
        number += 1;
    }
}

/// The folder with this ending beside `dir`.
fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or(std::ffi::OsStr::new("data")).to_os_string();
    name.push(".");
    name.push(ending);
    dir.with_file_name(name)
}

/// Removes what is in a folder, but for the file `kept`, which says whose it is should this be broken off.
///
/// # Errors
///
/// What the system said; some may be gone.
pub fn empty_but(dir: &Path, kept: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name() == kept {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes a folder whose lock is held. What another puts there, once the lock's file is gone, stays.
fn discard(dir: &Path) -> io::Result<()> {
    empty_but(dir, LOCK_FILE)?;
    fs::remove_file(dir.join(LOCK_FILE))?;
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::fs;
    use std::io;
    use std::path::Path;

    use super::{beside, put_in_place};

    fn put(dir: &Path, what: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("file"), what).unwrap();
    }

    fn held(dir: &Path) -> Option<String> {
        fs::read_to_string(dir.join("file")).ok()
    }

    /// The process ends before each change of a name: both directories are there whole, under their own name or the one
    /// that says what they are.
    #[test]
    fn a_restore_that_ends_at_any_step_loses_neither_directory() {
        for taken in [false, true] {
            let mut whole = false;
            for end in 0..5 {
                let dir = tempfile::tempdir().unwrap();
                let to = dir.path().join("data");
                let new = beside(&to, "restoring");
                put(&new, "new");
                if taken {
                    put(&to, "old");
                } else {
                    fs::create_dir(&to).unwrap();
                }
                let mut steps = 0;
                let ended = put_in_place(&new, &to, taken, &mut || {
                    steps += 1;
                    if steps > end { Err(io::Error::other("the process ends")) } else { Ok(()) }
                });
                whole |= ended.is_ok();
                let aside = held(&beside(&to, "before-restore-1"));
                let found = (held(&to), held(&new), aside);
                let (old, none) = (Some("old".to_owned()).filter(|_| taken), None);
                let new = Some("new".to_owned());
                let expected = [
                    (old.clone(), new.clone(), none.clone()),
                    (none.clone(), new.clone(), old.clone()),
                    (new, none, old),
                ];
                assert!(expected.contains(&found), "step {end}: {found:?}");
                assert!(ended.is_err() || found == expected[2], "step {end}: {found:?}");
            }
            assert!(whole, "five steps are more than there are");
        }
    }
}

//! A data directory made of a backup, whole or up to a point: built beside its place, and put there by one rename.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caxton_events::log::open::lock;
use caxton_events::log::{
    BuildError, Head, KEYS_FILE, KeysError, LogBuild, OpenError, OrdersError, StoredBlock, follow_orders,
    take_keys,
};
use caxton_events::{Clock, Seq, Timestamp};
use serde::Serialize;

use super::beside::{MARKER_FILE, MARKER_PART, begin_beside, beside, discard, is_taken, put_in_place};
use super::check::{Problem, missing, walk};
use super::disk::{can_be_named, is_plain, sync_tree, write_private};
use super::format::{BackupHead, Manifest, ManifestError, PartKind, read_manifest};
use super::frames::Frame;
use crate::counted::counted;

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
    /// Where the directory is built first there is something that no restore left.
    #[error(
        "{} is not empty and bears no mark of a restore (one of an older version set none), and the directory would be built there \
         before it gets its name; move it, or restore to another directory",
        path.display()
    )]
    InTheWay {
        /// The folder.
        path: PathBuf,
    },
    /// An earlier restore to the same directory ended when all was built, before the names were changed.
    #[error(
        "{} was restored whole by an earlier attempt that ended before it got its name; look at its {MARKER_FILE}, and give it \
         the name {} when nothing else has it, or remove it and restore again",
        path.display(), to.display()
    )]
    Unnamed {
        /// The folder.
        path: PathBuf,
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
    // It gets its name when all else lasts, and in one step.
    let (part, text) = (dir.join(MARKER_PART), format!("{marker:#}\n"));
    let marked = write_private(&part, text.as_bytes())
        .and_then(|()| sync_tree(dir))
        .and_then(|()| fs::rename(&part, dir.join(MARKER_FILE)))
        .and_then(|()| fs::File::open(dir)?.sync_all());
    marked.map_err(io)?;
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

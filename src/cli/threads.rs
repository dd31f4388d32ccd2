//! Priorities and cores of the server's threads: each is known by its name, which says its class.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use caxton_projections::embedding::leave_pinned;
use rustix::process::{Pid, getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, disable_transparent_huge_pages, sched_getaffinity, sched_setaffinity};

use crate::config::{CpuOptimization, ThreadClass};

/// How much nicer than others a preferred thread is served: five steps of the scheduler's forty.
const RAISED_BY: i32 = 5;
/// How long a thread is waited for to take its name.
const NAMED_WITHIN: Duration = Duration::from_millis(500);
/// Where the system lists the threads of this process.
const TASKS: &str = "/proc/self/task";

/// What was done, as lines of the start report.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// About `high_priority_threads`; `None` when nothing was asked for.
    pub(super) priority: Option<String>,
    /// About `enable_cpu_affinity`; `None` when nothing was asked for.
    pub(super) affinity: Option<String>,
}

/// Applies the settings to the threads there are. Threads that they start later inherit what they have.
pub(super) fn apply(settings: &CpuOptimization) -> Done {
    if settings.high_priority_threads.is_empty() && !settings.enable_cpu_affinity {
        return Done::default();
    }
    let threads = match threads(Path::new(TASKS)) {
        Ok(threads) => threads,
        Err(error) => {
            let told = Some(format!("not changed: {TASKS} could not be read: {error}"));
            return Done {
                priority: told.clone().filter(|_| !settings.high_priority_threads.is_empty()),
                affinity: told.filter(|_| settings.enable_cpu_affinity),
            };
        }
    };
    Done {
        priority: (!settings.high_priority_threads.is_empty()).then(|| raised(&threads, settings)),
        affinity: settings.enable_cpu_affinity.then(|| pinned(&threads)),
    }
}

/// Has the system give this process small pages alone from now on, where its memory is to be small: in huge ones the
/// allocator's pages hold much that nothing was written to yet.
pub(super) fn use_small_pages() {
    if let Err(error) = disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "the system does not let this process do without huge pages");
    }
}

/// A thread of this process and its class.
type Thread = (Pid, ThreadClass);

/// The threads of a class there are. A thread has its maker's name for a moment: while one has that of the first thread, they
/// are looked at again, for [`NAMED_WITHIN`] at most.
fn threads(tasks: &Path) -> io::Result<Vec<Thread>> {
    let started = Instant::now();
    loop {
        let (mut found, mut names) = (Vec::new(), Vec::new());
        for task in fs::read_dir(tasks)? {
            let task = task?;
            let id = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
            // A thread may end meanwhile.
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if let (Some(id), Some(class)) = (id, class(name.trim())) {
                found.push((id, class));
            }
            names.extend(id.map(|id| (id.as_raw_nonzero(), name)));
        }
        names.sort();
        let first = names.first().map(|(_, name)| name);
        let is_named = names.iter().filter(|(_, name)| Some(name) == first).count() <= 1;
        if is_named || started.elapsed() > NAMED_WITHIN {
            found.sort_by_key(|(id, _)| id.as_raw_nonzero());
            return Ok(found);
        }
        thread::yield_now();
    }
}

fn class(name: &str) -> Option<ThreadClass> {
    let prefixes: &[(&str, ThreadClass)] = &[
        ("caxton-http", ThreadClass::HttpWorkers),
        ("embed-query", ThreadClass::MemorySearch),
        ("embed-helper", ThreadClass::MemorySearch),
        ("embed-part", ThreadClass::MemorySearch),
        ("scan-", ThreadClass::MemorySearch),
        ("embed-bulk", ThreadClass::Embedding),
        ("memory-writer", ThreadClass::MemoryWriter),
        ("log-", ThreadClass::MemoryWriter),
        ("message-router", ThreadClass::Messages),
        ("talk-fold", ThreadClass::Messages),
        ("caxton-agents", ThreadClass::Agents),
    ];
    prefixes.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, class)| *class)
}

fn raised(threads: &[Thread], settings: &CpuOptimization) -> String {
    let wanted = &settings.high_priority_threads;
    let names = wanted.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(", ");
    let mut count = 0;
    for (id, _) in threads.iter().filter(|(_, class)| wanted.contains(class)) {
        let nice = getpriority_process(Some(*id)).unwrap_or(0);
        match setpriority_process(Some(*id), nice - RAISED_BY) {
            Ok(()) => count += 1,
            Err(error) => {
                return format!(
                    "not raised for {names}: {error}; the process needs CAP_SYS_NICE, or a limit of nice (RLIMIT_NICE)"
                );
            }
        }
    }
    format!("raised by {RAISED_BY} for {count} threads of {names}")
}

fn pinned(threads: &[Thread]) -> String {
    let allowed = match sched_getaffinity(None) {
        Ok(allowed) => allowed,
        Err(error) => return format!("not pinned: the system does not say which cores there are: {error}"),
    };
    // Searches call threads, and would move them.
    leave_pinned();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let mut last: Option<ThreadClass> = None;
    let mut sorted = threads.to_vec();
    sorted.sort_by_key(|(id, class)| (*class as u8, id.as_raw_nonzero()));
    let mut next = 0;
    for (id, class) in &sorted {
        // Each class begins at the first core, so that the threads of one are spread over all.
        if last.replace(*class) != Some(*class) {
            next = 0;
        }
        let Some(core) = cores.get(next % cores.len().max(1)) else { break };
        next += 1;
        let mut one = CpuSet::new();
        one.set(*core);
        if let Err(error) = sched_setaffinity(Some(*id), &one) {
            return format!("not pinned: {error}");
        }
    }
    format!("{} threads are pinned, those of a class over {} cores", sorted.len(), cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_thread_says_its_class() {
        for (name, then) in [
            ("caxton-http", Some(ThreadClass::HttpWorkers)),
            ("scan-3", Some(ThreadClass::MemorySearch)),
            ("embed-bulk-1", Some(ThreadClass::Embedding)),
            ("embed-part-2", Some(ThreadClass::MemorySearch)),
            ("memory-writer", Some(ThreadClass::MemoryWriter)),
            ("caxton-metrics", None),
            ("", None),
        ] {
            assert_eq!(class(name), then, "{name}");
        }
    }

    #[test]
    fn nothing_is_done_that_was_not_asked_for() {
        assert_eq!(apply(&CpuOptimization::default()), Done::default());
    }
}

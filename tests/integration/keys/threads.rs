//! Keys of threads, seen in what the system says of the process.

use std::thread;
use std::time::{Duration, Instant};

use super::super::cli::check_failure;
use super::super::program::Program;

/// Waits until the server has so many threads of this name; one that was made has its name a little later.
fn await_threads(config: &str, name: &str, count: usize) {
    let (program, started) = (Program::start(config), Instant::now());
    while program.threads(name).len() < count {
        assert!(started.elapsed() < Duration::from_mins(1), "{config}: {:?}", program.threads(name));
        thread::yield_now();
    }
}

#[test]
fn requests_and_agents_have_the_threads_of_the_file() {
    let cpu = |keys: &str| format!("runtime: {{cpu_optimization: {{{keys}}}}}");
    let few = Program::start(&cpu("tokio_worker_threads: 1, agent_worker_threads: 1"));
    few.get("/health").expect(200);
    let (http, agents) = (few.threads("caxton-http").len(), few.threads("caxton-agents").len());
    assert!(http < 12 && agents < 12, "{http} {agents}");
    await_threads(&cpu("tokio_worker_threads: 12"), "caxton-http", 12);
    await_threads(&cpu("agent_worker_threads: 12"), "caxton-agents", 12);
    await_threads("http_server: {worker_threads: 12}", "caxton-http", 12);
}

#[test]
fn no_more_threads_block_than_the_file_says() {
    let program = Program::start("http_server: {worker_threads: 1, max_blocking_threads: 2}");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| program.get("/memory/stats").expect(200));
        }
    });
    let threads = program.threads("caxton-http").len();
    assert!((2..=3).contains(&threads), "{threads}");
}

/// A word behind the name of the thread in its line of the system, as `nice` is the seventeenth.
fn number(program: &Program, thread: u32, word: usize) -> i64 {
    let line = program.proc(&format!("task/{thread}/stat"));
    line.rsplit_once(") ").unwrap().1.split(' ').nth(word).unwrap().parse().unwrap()
}

const NICE: usize = 16;

#[test]
fn threads_of_a_class_are_served_first_or_it_is_said_why_not() {
    let nice = |program: &Program, name: &str| {
        let started = Instant::now();
        loop {
            if let Some(thread) = program.threads(name).first() {
                return number(program, *thread, NICE);
            }
            // One that was made has its name a little later.
            assert!(started.elapsed() < Duration::from_mins(1), "no thread is called {name}");
            thread::yield_now();
        }
    };
    let usual = Program::start("");
    assert!(!usual.report.contains("priority"), "{}", usual.report);
    let before = nice(&usual, "caxton-http");
    let raised =
        Program::start("runtime: {cpu_optimization: {high_priority_threads: [http_workers, memory_writer]}}");
    let told = raised.report.lines().find(|line| line.contains("priority")).unwrap();
    if told.contains("not raised") {
        assert!(told.contains("http_workers") && told.contains("CAP_SYS_NICE"), "{told}");
        assert_eq!(nice(&raised, "caxton-http"), before);
    } else {
        assert_eq!(nice(&raised, "caxton-http"), before - 5);
        assert_eq!(nice(&raised, "memory-writer"), before - 5);
        assert_eq!(nice(&raised, "caxton-agents"), before, "of another class");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.yaml");
    std::fs::write(&file, "runtime: {cpu_optimization: {high_priority_threads: [https]}}").unwrap();
    check_failure(&["serve", "--config", file.to_str().unwrap()], 2, "http_workers, memory_search");
}

#[test]
fn threads_are_kept_on_a_core_where_the_file_says_so() {
    let cores = |program: &Program| -> Vec<String> {
        let threads = program.threads("caxton-http");
        let allowed = |thread: &u32| {
            let status = program.proc(&format!("task/{thread}/status"));
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
            line.trim().to_owned()
        };
        threads.iter().map(allowed).collect()
    };
    let all = cores(&Program::start("http_server: {worker_threads: 2}"));
    let pinned = Program::start(
        "http_server: {worker_threads: 2}\nruntime: {cpu_optimization: {enable_cpu_affinity: true}}",
    );
    assert!(pinned.report.contains("affinity   "), "{}", pinned.report);
    let one = cores(&pinned);
    assert!(one.len() >= 2 && one.iter().all(|list| list.parse::<usize>().is_ok()), "{one:?}");
    if all[0].contains(['-', ',']) {
        assert_ne!(one[0], one[1], "spread over the cores");
    }
}

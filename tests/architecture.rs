//! Keeps what ARCHITECTURE.md says true: who may know whom, one home per dependency, small files. All rules are tables.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Modules of `src/` and the modules each may name as `crate::…`. Change it with a reason in the commit message.
const MODULES: &[(&str, &[&str])] = &[
    ("allocator", &[]),
    ("failure", &[]),
    ("commands", &[]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("model", &["config"]),
    ("engine", &["commands", "config", "failure", "telemetry"]),
    ("llm", &["config", "failure", "telemetry"]),
    ("toolbox", &["commands", "config", "engine", "failure", "llm", "telemetry"]),
    ("agents", &["commands", "config", "engine", "failure", "llm", "telemetry", "toolbox"]),
    ("api", &["agents", "commands", "config", "engine", "failure", "telemetry"]),
    (
        "cli",
        &[
            "agents",
            "allocator",
            "api",
            "commands",
            "config",
            "engine",
            "failure",
            "llm",
            "model",
            "telemetry",
            "toolbox",
        ],
    ),
];

/// Which crate of this repository may depend on which.
const CRATES: &[(&str, &[&str])] = &[
    ("events", &[]),
    ("projections", &["caxton-events"]),
    ("tools", &["caxton-events", "caxton-projections"]),
    (".", &["caxton-events", "caxton-projections", "caxton-tools"]),
];

/// Where each dependency lives: paths that start with one of these may name it. `""` is everywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("axum", &["src/api/", "tests/"]),
    ("base64", &["src/api/", "events/log/"]),
    ("bincode", &["events/"]),
    ("blake3", &[""]),
    ("candle-core", &["projections/embedding/", "src/llm/local/"]),
    ("candle-nn", &["projections/embedding/"]),
    ("candle-transformers", &["projections/embedding/", "src/llm/local/"]),
    ("caxton-events", &["projections/", "tools/", "src/", "tests/", "benches/"]),
    ("caxton-projections", &["tools/", "src/", "tests/", "benches/"]),
    (
        "caxton-tools",
        &["src/api/", "src/cli/", "src/engine/rebuild.rs", "src/engine/start.rs", "tests/", "benches/"],
    ),
    ("chacha20poly1305", &["events/log/sealing/cipher.rs"]),
    ("clap", &["src/cli/"]),
    ("clap_complete", &["src/cli/"]),
    ("comfy-table", &["src/cli/"]),
    ("criterion", &["benches/", "tests/integration/benchmark.rs"]),
    (
        "crossbeam-channel",
        &["events/log/", "projections/", "src/engine/", "src/agents/", "src/telemetry", "benches/"],
    ),
    ("ed25519-dalek", &["events/log/checkpoint.rs"]),
    ("foldhash", &["projections/by_name.rs"]),
    ("futures", &["src/", "tests/"]),
    ("getrandom", &["src/"]),
    ("hdrhistogram", &["tools/replay/", "src/cli/benchmark/"]),
    ("http-body-util", &["src/api/", "tests/"]),
    ("httpdate", &["src/llm/"]),
    ("humantime", &["src/config/", "src/cli/"]),
    ("hyper", &["src/api/", "tests/"]),
    ("hyper-util", &["src/api/", "tests/"]),
    ("indicatif", &["src/cli/"]),
    ("libc", &["projections/embedding/", "projections/vector/", "src/agents/files.rs", "src/allocator.rs"]),
    ("libmimalloc-sys", &["src/allocator.rs"]),
    ("lz4_flex", &["events/"]),
    ("memmap2", &["projections/embedding/", "projections/vector/"]),
    ("metrics", &["src/telemetry"]),
    ("metrics-exporter-prometheus", &["src/telemetry"]),
    ("mimalloc", &["src/main.rs", "benches/crowd/", "benches/scalability/counting.rs"]),
    ("minijinja", &["src/agents/"]),
    ("notify", &["src/agents/watcher.rs"]),
    ("parquet", &["tools/transfer/"]),
    ("process-wrap", &["src/toolbox/mcp/"]),
    ("proptest", &["events/", "projections/", "tools/", "src/", "tests/"]),
    ("redb", &["events/log/", "tests/", "benches/"]),
    ("regex", &["src/llm/", "benches/figures/"]),
    ("reqwest", &["src/llm/", "src/toolbox/"]),
    ("rmp-serde", &["src/api/rest/", "tests/"]),
    ("rmcp", &["src/toolbox/mcp/"]),
    ("rusqlite", &["projections/graph/", "projections/talk/", "projections/text/", "benches/throughput/"]),
    (
        "rustix",
        &[
            "events/log/journal/",
            "projections/swap.rs",
            "tools/",
            "src/cli/threads.rs",
            "src/api/rest/serve.rs",
        ],
    ),
    ("rustls", &["src/llm/", "src/toolbox/tls.rs"]),
    ("semver", &["src/agents/"]),
    ("serde", &[""]),
    ("serde_json", &[""]),
    ("serde_yaml", &["src/config/", "tests/integration/workflows/", "benches/figures/"]),
    (
        "sha2",
        &[
            "events/log/checkpoint.rs",
            "projections/embedding/",
            "src/agents/",
            "src/model/",
            "src/config/",
            "src/api/",
        ],
    ),
    ("simdutf8", &["events/cursor.rs"]),
    ("strsim", &["src/agents/", "src/commands/talk/", "src/config/", "src/api/", "tools/audit/"]),
    ("subtle", &["src/"]),
    ("tempfile", &[""]),
    ("thiserror", &[""]),
    ("tikv-jemallocator", &["src/main.rs"]),
    ("tokenizers", &["projections/embedding/", "src/llm/local/"]),
    ("tokio", &["src/", "tests/", "benches/"]),
    ("tower", &["src/api/", "tests/"]),
    ("tower-http", &["src/api/"]),
    ("tracing", &["src/"]),
    ("tracing-subscriber", &["src/telemetry", "src/config/checks.rs"]),
    ("twox-hash", &["events/log/block.rs", "events/log/journal/", "events/log/wal.rs", "benches/recovery/"]),
    ("unicode-normalization", &["projections/text/words.rs"]),
    ("ureq", &["src/model/", "src/cli/", "tests/"]),
    ("usearch", &["projections/vector/"]),
    ("uuid", &["events/"]),
    ("zip", &["src/model/"]),
];

/// Words that must not stand in the code of a folder, and why.
const BANNED: &[(&str, &[&str], &str)] = &[
    ("", &["todo!", "unimplemented!", "dbg!"], "what is not written yet is not offered either"),
    (
        "events/",
        &["SystemTime::now", "Instant::now", "getrandom"],
        "facts bring their own time; a clock, chance or the environment would make replay differ",
    ),
    (
        "projections/",
        &["SystemTime::now", "Instant::now", "getrandom"],
        "a projection depends on the log alone",
    ),
    ("tools/", &["SystemTime::now", "Instant::now", "getrandom"], "the same directory gives the same answer"),
];

/// The only places where `unsafe` may stand: each block there says why it holds.
const UNSAFE: &[&str] = &[
    "events/log/tails.rs",
    "projections/embedding/",
    "projections/vector/",
    // Its options are those of a C library.
    "src/allocator.rs",
    // An allocator is unsafe to be one, and there is no other place to count what passes through.
    "benches/scalability/counting.rs",
];

/// Longest file, in lines.
const FILE_LINES_MAX: usize = 600;
/// Longest `src/main.rs`, in lines.
const MAIN_LINES_MAX: usize = 60;

/// A Rust file of this repository.
struct Source {
    /// Path below the repository, with `/`.
    path: String,
    /// As it stands.
    text: String,
    /// Without comments and with empty string literals.
    code: String,
}

#[test]
fn modules_name_only_what_stands_below_them() {
    let allowed: BTreeMap<&str, &[&str]> = MODULES.iter().copied().collect();
    let mut wrong = String::new();
    for file in sources() {
        let Some(inner) = file.path.strip_prefix("src/") else { continue };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(below) = allowed.get(module) else {
            let _ = writeln!(wrong, "{}: module {module} is not in MODULES", file.path);
            continue;
        };
        for named in crate_modules(&file.code) {
            if named != module && allowed.contains_key(named.as_str()) && !below.contains(&named.as_str()) {
                let _ = writeln!(wrong, "{}: {module} must not name crate::{named}", file.path);
            }
        }
    }
    assert!(wrong.is_empty(), "directions inside src/:\n{wrong}");
}

#[test]
fn main_names_only_the_command_line() {
    let files = sources();
    let main = files.iter().find(|file| file.path == "src/main.rs").expect("src/main.rs");
    let lines = main.text.lines().count();
    assert!(lines <= MAIN_LINES_MAX, "src/main.rs has {lines} lines, the limit is {MAIN_LINES_MAX}");
    for named in paths_below(&main.code, "caxton::") {
        assert_eq!(named, "cli", "src/main.rs names caxton::{named}; it may name caxton::cli alone");
    }
}

#[test]
fn crates_depend_downwards_only() {
    let mut wrong = String::new();
    for (folder, below) in CRATES {
        for (name, _) in dependencies(folder) {
            if name.starts_with("caxton") && !below.contains(&name.as_str()) {
                let _ = writeln!(wrong, "{folder}/Cargo.toml must not depend on {name}");
            }
        }
    }
    assert!(wrong.is_empty(), "directions between crates:\n{wrong}");
}

#[test]
fn every_dependency_lives_in_its_home() {
    let mut wrong = String::new();
    let files = sources();
    for (name, homes) in HOMES {
        let ident = name.replace('-', "_");
        for file in &files {
            if names_crate(&file.code, &ident) && !homes.iter().any(|home| file.path.starts_with(home)) {
                let _ = writeln!(wrong, "{} names {name}, whose home is {homes:?}", file.path);
            }
        }
    }
    assert!(wrong.is_empty(), "one home per dependency:\n{wrong}");
}

#[test]
fn every_dependency_has_a_home_and_a_use() {
    let homes: BTreeSet<&str> = HOMES.iter().map(|(name, _)| *name).collect();
    let files = sources();
    let mut wrong = String::new();
    let mut declared = BTreeSet::new();
    for (folder, _) in CRATES {
        for (name, _) in dependencies(folder) {
            let used = files.iter().any(|file| {
                member_of(&file.path) == *folder && names_crate(&file.code, &name.replace('-', "_"))
            });
            if !used {
                let _ = writeln!(wrong, "{folder}/Cargo.toml declares {name}, but nothing there names it");
            }
            if !homes.contains(name.as_str()) {
                let _ = writeln!(wrong, "{name} has no row in HOMES");
            }
            declared.insert(name);
        }
    }
    for name in homes.iter().filter(|name| !declared.contains(**name)) {
        let _ = writeln!(wrong, "HOMES has {name}, but no Cargo.toml declares it");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn forbidden_words_stand_nowhere() {
    let mut wrong = String::new();
    for file in sources().iter().filter(|file| file.path != "tests/architecture.rs") {
        for (folder, words, why) in BANNED.iter().filter(|(folder, ..)| file.path.starts_with(folder)) {
            for word in words.iter().filter(|word| file.code.contains(**word)) {
                let _ = writeln!(wrong, "{}: no {word} in {folder:?}: {why}", file.path);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn unsafe_code_stays_with_the_kernels() {
    for file in sources() {
        let found = words(&file.code).any(|word| word == "unsafe");
        let home = UNSAFE.iter().any(|home| file.path.starts_with(home));
        assert!(!found || home, "{}: unsafe belongs to {UNSAFE:?}", file.path);
    }
}

#[test]
fn every_file_says_what_it_is_and_stays_small() {
    let mut wrong = String::new();
    for file in sources() {
        if !file.text.starts_with("//! ") {
            let _ = writeln!(wrong, "{}: opens without a `//!` sentence", file.path);
        }
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            let _ = writeln!(wrong, "{}: {lines} lines, the limit is {FILE_LINES_MAX}", file.path);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_map_stays_a_map() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let lines = map.lines().count();
    assert!(lines <= 250, "ARCHITECTURE.md has {lines} lines, the limit is 250");
    for (module, _) in MODULES {
        assert!(map.contains(&format!("src/{module}")), "ARCHITECTURE.md does not mention src/{module}");
    }
}

#[test]
fn comments_and_strings_are_not_code() {
    for (text, code) in [
        ("a // todo!()\nb", "a \nb"),
        ("a /* x /* y */ z */ b", "a  b"),
        (r#"f("http://x \" y") // z"#, r#"f("") "#),
        ("r#\"a\"b\"# c", "\"\" c"),
        (r"('\'', '\u{41}', 'x')", "('', '', '')"),
        ("&'a str", "&'a str"),
        ("br\"x\\\" y", "b\"\" y"),
        ("for_r(\"x\")", "for_r(\"\")"),
    ] {
        assert_eq!(code_of(text), code, "{text}");
    }
}

#[test]
fn grouped_imports_are_seen() {
    let code = "use crate::{engine::Engine, config, api::{rest, Router}};\nlet x = crate::cli::run();";
    let named: Vec<String> = crate_modules(code).into_iter().collect();
    assert_eq!(named, ["api", "cli", "config", "engine"]);
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the workspace, by path.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "events", "projections", "tools", "tests", "benches"] {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("a readable source file");
            let code = code_of(&text);
            Source { path, text, code }
        })
        .collect()
}

/// Adds the Rust files below `folder`, relative to the repository. A folder that is missing has none.
fn collect(folder: &Path, paths: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, paths);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(root()).expect("below the repository");
            paths.push(below.to_str().expect("a path in UTF-8").replace('\\', "/"));
        }
    }
}

/// The folder of the crate that a file belongs to, as in [`CRATES`].
fn member_of(path: &str) -> &str {
    match path.split('/').next() {
        Some(member @ ("events" | "projections" | "tools")) => member,
        _ => ".",
    }
}

/// Direct dependencies of the crate in `folder`, and whether each is for tests and benches only.
fn dependencies(folder: &str) -> Vec<(String, bool)> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("Cargo.toml");
    let mut section = "";
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if matches!(section, "dependencies" | "dev-dependencies")
            || section.ends_with("'.dependencies")
        {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if !name.is_empty() && !name.starts_with('#') {
                found.push((name.to_owned(), section == "dev-dependencies"));
            }
        }
    }
    found
}

/// Modules named as `crate::…`, also in groups.
fn crate_modules(code: &str) -> BTreeSet<String> {
    paths_below(code, "crate::")
}

/// The first path segment after each `prefix`, also in groups.
fn paths_below(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let longer = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        if longer {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.insert(first_word(rest).to_owned());
        }
    }
    found
}

/// The first word of every member of a `{…}` group whose brace is open.
fn group_heads(group: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let mut heads = vec![first_word(group.trim_start()).to_owned()];
    for (at, sign) in group.char_indices() {
        match sign {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(first_word(group[at + 1..].trim_start()).to_owned()),
            _ => (),
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// The identifier at the front of `text`.
fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// The identifiers and keywords of `code`.
fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty())
}

/// Whether `code` names the crate: as the head of a path, or in a plain `use`.
fn names_crate(code: &str, ident: &str) -> bool {
    code.match_indices(ident).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + ident.len()..];
        let head = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && (!before.ends_with("::") || is_absolute(before));
        let path = after.starts_with("::");
        let plain = before.ends_with("use ") && after.starts_with([';', ' ']);
        head && (path || plain)
    })
}

/// Whether the `::` at the end of `before` opens an absolute path, as in `use ::redb`.
fn is_absolute(before: &str) -> bool {
    before
        .strip_suffix("::")
        .is_some_and(|rest| !rest.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>'))
}

/// `text` without comments and with the contents of string and character literals removed.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(sign) = rest.chars().next() {
        let raw = raw_string_len(rest, &code);
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if raw > 0 {
            code.push_str("\"\"");
            raw
        } else if sign == '"' {
            code.push_str("\"\"");
            quoted_len(rest, b'"')
        } else if sign == '\'' && is_char_literal(rest) {
            code.push_str("''");
            quoted_len(rest, b'\'')
        } else {
            code.push(sign);
            sign.len_utf8()
        };
        rest = &rest[skipped..];
    }
    code
}

/// Bytes of the nested block comment at the front of `text`.
fn block_comment_len(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Bytes of the raw string at the front of `text`, 0 when there is none. `code` is what stands before it.
fn raw_string_len(text: &str, code: &str) -> usize {
    let Some(opening) = text.strip_prefix('r') else { return 0 };
    let prefix = code.strip_suffix('b').unwrap_or(code);
    if prefix.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return 0;
    }
    let hashes = opening.len() - opening.trim_start_matches('#').len();
    if !opening[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let start = 1 + hashes + 1;
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// Bytes of the literal at the front of `text`, both quotes included.
fn quoted_len(text: &str, quote: u8) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether the quote at the front of `text` opens a character and not a lifetime.
fn is_char_literal(text: &str) -> bool {
    let mut signs = text.chars().skip(1);
    match signs.next() {
        Some('\\') => true,
        Some(_) => signs.next() == Some('\''),
        None => false,
    }
}

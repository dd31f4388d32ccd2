//! The reference of the configuration says what the program knows.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

const HEAD: &str = "\
# Configuration

`caxton serve --config FILE` reads YAML; a value comes from the flag (`--set KEY=VALUE` for any key), else the
variable, else the file, else the preset, else the default. Unknown keys and values out of range end the start with the line and the remedy. `caxton config show`
prints every effective value with where it came from, `caxton config check FILE` judges a file and says which of its keys
change nothing, `caxton config explain KEY` says what a key changes and how to see it. The variable of a key is
`CAXTON_` and the key in capitals with `__` for each `.`, as in `CAXTON_SERVER__PORT`.

Relative paths, also those of `llm.providers` and `mcp_servers`, count from the folder in which Caxton is started (its working
directory), not from that of the file. `config check`, run in that folder, names those that lead nowhere and says where they
led: as an error where `serve` would not start without them, else as a warning.

This page is made from the program: `BLESS=1 cargo nextest run --workspace --test integration config_page`.
";

/// The page as the program would write it.
fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut section = String::new();
    for row in caxton::config::known_keys() {
        let word = |name: &str| row[name].as_str().unwrap();
        let key = word("key");
        let top = key.split('.').next().unwrap();
        if top != section {
            top.clone_into(&mut section);
            let _ = write!(text, "\n## {top}\n\n| key | default | takes |\n|---|---|---|\n");
        }
        let cell = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
        let mut takes = format!("{} {}", cell(word("about")), sentence(&cell(word("takes"))));
        let aliases: Vec<&str> =
            row["aliases"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        if !aliases.is_empty() {
            let _ = write!(takes, " Also `{}`.", aliases.join("`, `"));
        }
        let default = &row["default"];
        let default = if default.is_null() {
            "unset".to_owned()
        } else if let Some(text) = default.as_str() {
            format!("`{text}`")
        } else if let Some(rows) = default.as_array().filter(|rows| !rows.is_empty()) {
            // The queues of the guide do not fit a cell.
            format!("{} rows", rows.len())
        } else {
            format!("`{default}`")
        };
        let _ = writeln!(text, "| `{key}` | {default} | {takes} |");
    }
    text
}

fn sentence(text: &str) -> String {
    let mut signs = text.chars();
    let first = signs.next().map(|sign| sign.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", signs.as_str())
}

#[test]
fn the_reference_of_the_configuration_is_what_the_program_knows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = page();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let known: Vec<&str> = page.lines().collect();
    for (index, line) in written.lines().enumerate() {
        assert_eq!(Some(&line), known.get(index), "line {}: make the page anew with BLESS=1", index + 1);
    }
    assert_eq!(written.lines().count(), known.len(), "make the page anew with BLESS=1");
}

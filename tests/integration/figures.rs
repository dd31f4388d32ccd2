//! README's table of figures is what the benches printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[path = "../../benches/figures/page.rs"]
#[allow(clippy::panic, reason = "it stops at the first surprise")]
mod page;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_readme_has_the_figures_that_were_measured() {
    let folder = root().join("benches/figures");
    let table = page::table(&page::rows(&folder), &page::results(&folder)).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let wanted = page::placed(&readme, &table).expect("README.md has the two lines");
    assert!(readme == wanted, "write it anew with `cargo bench --bench figures`");
    assert!(table.lines().filter(|line| line.starts_with("| ")).count() > 10, "{table}");
}

#[test]
fn a_command_needs_what_any_of_its_rows_needs() {
    let row = |command: &str, needs: &[&str]| page::Row {
        what: String::new(),
        command: command.to_owned(),
        times: 1,
        after: None,
        needs: needs.iter().map(|&name| name.to_owned()).collect(),
        find: Vec::new(),
        figure: String::new(),
    };
    let rows = [row("b", &["PEER"]), row("a", &[]), row("b", &["TORCH", "PEER"]), row("b", &[])];
    let commands: Vec<(&str, Vec<&str>)> = page::commands(&rows)
        .into_iter()
        .map(|(row, needs)| (row.command.as_str(), needs.into_iter().collect()))
        .collect();
    assert_eq!(commands, [("b", vec!["PEER", "TORCH"]), ("a", vec![])]);
}

#[test]
fn every_row_is_measured_by_a_bench_that_there_is() {
    let folder = root().join("benches/figures");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let rows = page::rows(&folder);
    for row in &rows {
        let words = row.command.strip_prefix("cargo bench --bench ").expect("a bench measures it");
        let name = words.split(' ').next().unwrap();
        if let Some(after) = &row.after {
            assert!(after.run.contains(&after.makes), "{}", after.run);
        }
        assert!(manifest.contains(&format!("[[bench]]\nname = \"{name}\"")), "{name}");
    }
    let commands: BTreeSet<&str> = rows.iter().map(|row| row.command.as_str()).collect();
    for command in page::results(&folder).keys() {
        assert!(commands.contains(command.as_str()), "results.json has what no row is about: {command}");
    }
}

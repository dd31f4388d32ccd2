//! `caxton erase`: shows what would go, has it erased, and checks receipts.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use caxton_events::log::PublicKey;
use serde_json::{Map, Value, json};

use super::args::{CheckReceipt, Common, Erase, EraseCommand};
use super::backend::{Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, counted, items};
use super::transfer::{is_dash, is_free, write_out};
use crate::engine::erase::receipt;

const PATH: &str = "/api/v1/erase";

/// Runs it.
pub(super) fn run(erase: &Erase, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let Some(EraseCommand::CheckReceipt(check)) = &erase.command {
        return check_receipt(check, out);
    }
    let file = place_of_receipt(erase)?;
    let backend = Backend::open(common, false)?;
    let mut wanted = Map::new();
    for (name, value) in [
        ("scope", &erase.scope),
        ("agent", &erase.agent),
        ("conversation", &erase.conversation),
        ("reason", &erase.reason),
    ] {
        if let Some(value) = value {
            wanted.insert(name.to_owned(), json!(value));
        }
    }
    let post = |more: (&str, Value)| {
        let mut body = wanted.clone();
        body.insert(more.0.to_owned(), more.1);
        backend.ask(Request::post(PATH, &Value::Object(body)))
    };
    let plan = post(("dry_run", json!(true)))?;
    if erase.dry_run || !erase.yes {
        if out.is_json() {
            out.json(&plan)?;
        } else {
            print_plan(&plan, out)?;
        }
        if erase.dry_run {
            return Ok(());
        }
        let message = "nothing was erased yet; this cannot be undone: add --yes to erase what is shown";
        return Err(Failure::new(Exit::Usage, message));
    }
    let done = post(("confirm", plan["confirm"].clone()))?;
    let receipt = cell(&done, "receipt");
    let written = file.map_or(Ok(()), |path| write_out(path, |file| file.write_all(receipt.as_bytes())));
    if out.is_json() {
        // The receipt is in there, too.
        return out.json(&done).and(written);
    }
    print_plan(&done, out)?;
    let [order, erased] = ["order_seq", "erased_seq"].map(|name| cell(&done, name));
    out.line(format_args!("erased: ordered at #{order}, done at #{erased}"))?;
    if let Err(failure) = written {
        // There is no second one: whoever erased gets it all the same.
        out.text(receipt)?;
        let message = format!("{failure}; it is erased all the same: the receipt stands on standard output");
        return Err(failure.told(message));
    }
    match file {
        Some(path) => out.line(format_args!(
            "wrote the receipt to {0}; check it with: caxton erase check-receipt {0}",
            path.display()
        )),
        None => out.text(receipt),
    }
}

/// The file for the receipt, if one was named. It is looked at before anything is erased: there is no way back then, and no
/// second receipt.
fn place_of_receipt(erase: &Erase) -> Result<Option<&Path>, Failure> {
    let Some(path) = erase.out.as_deref().filter(|path| !is_dash(path)) else { return Ok(None) };
    is_free(path, erase.force)?;
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => {
            let message =
                format!("there is no folder {} for the receipt; make it, or name another", folder.display());
            Err(Failure::new(Exit::NotFound, message))
        }
        None => Ok(Some(path)),
    }
}

fn print_plan(plan: &Value, out: &mut Output) -> Result<(), Failure> {
    let subjects = items(plan, "subjects");
    let rows = subjects.iter().map(|row| {
        ["subject", "events", "encrypted", "plain", "erased_before"].map(|name| cell(row, name)).to_vec()
    });
    out.table(&["what", "events", "encrypted", "plain", "erased before"], rows.collect())?;
    let many = |value: &Value, thing| counted(value.as_u64().unwrap_or_default() as usize, thing);
    let (asked, events) = (cell(plan, "asked"), many(&plan["events"], "event"));
    out.line(format_args!("{asked}: {events} of {}", counted(subjects.len(), "subject")))?;
    for row in items(plan, "stays") {
        let (scope, facts) = (cell(row, "scope"), many(&row["facts"], "fact"));
        out.line(format_args!("stays: {facts} that it wrote to {scope}, which others share"))?;
    }
    print_quoted(&plan["quoted_in"], out)
}

/// Says where agents were shown what goes, or wrote it.
fn print_quoted(quoted: &Value, out: &mut Output) -> Result<(), Failure> {
    let count = quoted["count"].as_u64().unwrap_or_default() as usize;
    if count == 0 {
        return Ok(());
    }
    let named: Vec<&str> = items(quoted, "conversations").iter().filter_map(Value::as_str).collect();
    let more = match count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (counted, named) = (counted(count, "conversation"), named.join(", "));
    out.line(format_args!(
        "stays: what turns of {counted} recorded of it: {named}{more}; erase these, too, with --conversation ID"
    ))
}

fn check_receipt(check: &CheckReceipt, out: &mut Output) -> Result<(), Failure> {
    let key = check.public_key.as_deref().map(str::parse::<PublicKey>).transpose();
    let key = key.map_err(|error| Failure::of(Exit::Usage, &error))?;
    let mut text = String::new();
    let read = if is_dash(&check.file) {
        std::io::stdin().read_to_string(&mut text)
    } else {
        fs::File::open(&check.file).and_then(|mut file| file.read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file("read", &check.file, &error))?;
    let signed = receipt::check(&text, key.as_ref()).map_err(|error| Failure::of(Exit::Failed, &error))?;
    if out.is_json() {
        return out.json(&json!({ "signed": signed }));
    }
    out.text(signed)?;
    out.line("this is what was signed")?;
    if key.is_none() {
        out.line("that key stands in the receipt itself: compare it with the one you have from elsewhere (--public-key)")?;
    }
    Ok(())
}

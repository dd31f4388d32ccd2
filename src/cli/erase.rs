//! `caxton erase`: shows what would go, has it erased, and checks receipts.

use std::fs;
use std::io::Read as _;

use caxton_events::log::PublicKey;
use serde_json::{Map, Value, json};

use super::args::{CheckReceipt, Common, Erase, EraseCommand};
use super::backend::{Backend, Request};
use super::failure::{Exit, Failure};
use super::output::{Output, cell, counted, items};
use super::transfer::is_dash;
use crate::engine::erase::receipt;

const PATH: &str = "/api/v1/erase";

/// Runs it.
pub(super) fn run(erase: &Erase, common: &Common, out: &mut Output) -> Result<(), Failure> {
    if let Some(EraseCommand::CheckReceipt(check)) = &erase.command {
        return check_receipt(check, out);
    }
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
    if let Some(path) = &erase.out {
        fs::write(path, &receipt).map_err(|error| Failure::file("write", path, &error))?;
    }
    if out.is_json() {
        return out.json(&done);
    }
    print_plan(&done, out)?;
    let [order, erased] = ["order_seq", "erased_seq"].map(|name| cell(&done, name));
    out.line(format_args!("erased: ordered at #{order}, done at #{erased}"))?;
    match &erase.out {
        Some(path) => out.line(format_args!(
            "wrote the receipt to {0}; check it with: caxton erase check-receipt {0}",
            path.display()
        )),
        None => out.text(receipt),
    }
}

fn print_plan(plan: &Value, out: &mut Output) -> Result<(), Failure> {
    let subjects = items(plan, "subjects");
    let rows = subjects.iter().map(|row| {
        ["subject", "events", "encrypted", "plain", "erased_before"].map(|name| cell(row, name)).to_vec()
    });
    out.table(&["what", "events", "encrypted", "plain", "erased before"], rows.collect())?;
    let [asked, events] = ["asked", "events"].map(|name| cell(plan, name));
    out.line(format_args!("{asked}: {events} events of {}", counted(subjects.len(), "subject")))?;
    for row in items(plan, "stays") {
        let [scope, facts] = ["scope", "facts"].map(|name| cell(row, name));
        out.line(format_args!("stays: {facts} facts that it wrote to {scope}, which others share"))?;
    }
    Ok(())
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

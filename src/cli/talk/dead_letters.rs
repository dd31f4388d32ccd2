//! `caxton deadletters list | replay`.

use serde_json::{Value, json};

use super::super::args::{Common, DeadLettersCommand, DeadLettersList, DeadLettersReplay, WhichLetters};
use super::super::backend::{Backend, Request};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, cell, counted, items};
use super::{all, names, print_next, second};

/// Runs a command about messages that were given up.
pub(in crate::cli) fn run(
    command: &DeadLettersCommand,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List(list) => print_list(list, common, out),
        DeadLettersCommand::Replay(replay) => send_again(replay, common, out),
    }
}

fn request(which: &WhichLetters) -> Request {
    Request::get("/api/v1/dead-letters")
        .with_some("receiver", which.receiver.as_deref())
        .with_some("reason", which.reason.as_deref())
}

fn print_list(list: &DeadLettersList, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let request =
        request(&list.which).with_some("replayed", list.pending.then_some("false")).page(&list.page);
    let answer = Backend::open(common, false)?.ask(request)?;
    if out.is_json() {
        return out.json(&answer);
    }
    let letters = items(&answer, "dead_letters");
    let rows = letters.iter().map(|row| {
        let [seq, sent, receiver, reason, attempts, detail] =
            ["seq", "message_seq", "receiver", "reason", "attempts", "detail"].map(|name| cell(row, name));
        let again = items(row, "replayed_as").len();
        let again = if again == 0 { String::new() } else { counted(again, "time") };
        vec![seq, sent, receiver, reason, attempts, second(row, "recorded_at"), again, detail]
    });
    let head = ["seq", "message", "receiver", "reason", "attempts", "given up", "sent again", "why"];
    out.table(&head, rows.collect())?;
    out.line(counted(letters.len(), "dead letter"))?;
    print_next(&answer, out)
}

fn send_again(replay: &DeadLettersReplay, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let backend = Backend::open(common, true)?;
    // The whole list first: what is sent again may become a new dead letter, and is not for this run.
    let seqs = if replay.all {
        let pending = all(&backend, &request(&replay.which).with("replayed", "false"), "dead_letters")?;
        pending.iter().filter_map(|row| row["seq"].as_u64()).collect()
    } else {
        replay.seqs.clone()
    };
    let (mut shown, mut refused, mut first, mut lost) = (Vec::new(), 0, None, 0);
    for seq in &seqs {
        let answer = backend.ask(Request::post(
            &format!("/api/v1/dead-letters/{seq}/replay"),
            &json!({"again": replay.again}),
        ));
        match answer {
            Ok(sent) => {
                lost += usize::from(sent["status"] == "dead_lettered");
                if !out.is_json() {
                    print_replayed(*seq, &sent, out)?;
                }
                shown.push(json!({ "dead_letter": seq, "sent": sent }));
            }
            // With one letter the failure says it all; of many the others are still tried.
            Err(failure) if seqs.len() == 1 || failure.exit == Some(Exit::Unreachable) => {
                return Err(failure);
            }
            Err(failure) => {
                if !out.is_json() {
                    out.line(format_args!("#{seq}: {failure}"))?;
                }
                shown.push(json!({ "dead_letter": seq, "error": failure.to_string() }));
                refused += 1;
                first.get_or_insert(failure);
            }
        }
    }
    if out.is_json() {
        out.json(&json!({ "replayed": seqs.len() - refused, "refused": refused, "results": shown }))?;
    } else {
        out.line(format_args!("{} sent again", counted(seqs.len() - refused, "dead letter")))?;
    }
    match first {
        Some(first) => {
            let message = format!("{refused} of {} could not be sent again; see above", seqs.len());
            Err(first.told(message))
        }
        None if lost > 0 => {
            let message = format!("{lost} of {} went to nobody and became a dead letter again", seqs.len());
            Err(Failure::new(Exit::Failed, message))
        }
        None => Ok(()),
    }
}

fn print_replayed(letter: u64, sent: &Value, out: &mut Output) -> Result<(), Failure> {
    let to = match names(sent, "delivered_to") {
        to if to.is_empty() => "nobody".to_owned(),
        to => to,
    };
    out.line(format_args!("#{letter} went to {to} as #{}", cell(sent, "seq")))
}

//! The command line: reads what was typed, asks a server or an engine of its own, prints. No rule lives here.
//!
//! Reading order: `args` (what can be typed), `setup` (from flags to a running engine), `serve`, `backend` (who
//! answers requests), `feed` (streams of events), `interrupt` (Ctrl-C), then a file for each group of commands; `failure` and `output` are how all of them end.

mod agents;
mod args;
mod audit;
mod backend;
mod backup;
mod benchmark;
mod compare;
mod corpus;
mod erase;
mod exchange;
mod failure;
mod feed;
mod fork;
mod import_totals;
mod interrupt;
mod log;
mod memory;
mod memory_diff;
mod model;
mod operate;
mod output;
mod progress;
mod projection;
mod proofs;
mod ranges;
mod refusals;
mod replay;
mod retention;
mod salvage;
mod serve;
mod setup;
mod talk;
mod threads;
mod transfer;
mod undo;
mod whole_answer;
mod whole_input;
mod whole_output;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use args::{Args, Command};
use failure::Failure;
use output::Output;

/// Runs the command that was typed; the exit codes are those of `caxton --help`.
pub fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            // The reader of a help text may leave early; there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let mut out = Output::stdout(args.common.json);
    let done = dispatch(args, &mut out).and_then(|()| out.flush());
    let Err(failure) = done else { return ExitCode::SUCCESS };
    // Whoever read the output has gone: that is no fault, and there is nobody to tell.
    let Some(exit) = failure.exit else { return ExitCode::SUCCESS };
    // What was printed before the failure comes first.
    let _ = out.flush();
    let _ = writeln!(io::stderr(), "caxton: {failure}");
    ExitCode::from(exit as u8)
}

fn dispatch(Args { common, command }: Args, out: &mut Output) -> Result<(), Failure> {
    match command {
        Command::Serve(serve) => serve::run(&serve, &common),
        Command::Memory(command) => memory::run(command, &common, out),
        Command::Agents(command) => agents::run(&command, &common, out),
        Command::Message(command) => talk::message(&command, &common, out),
        Command::Conversations(command) => talk::conversations(&command, &common, out),
        Command::Capabilities(command) => talk::capabilities(&command, &common, out),
        Command::Deadletters(command) => talk::dead_letters(&command, &common, out),
        Command::Chat(chat) => talk::chat(&chat, &common, out),
        Command::Erase(what) => erase::run(&what, &common, out),
        Command::Export(command) => exchange::run_export(&command, &common, out),
        Command::Import(command) => exchange::run_import(&command, &common, out),
        Command::Log(command) => log::run(&command, &common, out),
        Command::Audit(command) => audit::run(&command, &common, out),
        Command::Replay(what) => replay::run(&what, &common, out),
        Command::Projection(command) => projection::run(&command, &common, out),
        Command::Backup(what) => backup::backup(&what, &common, out),
        Command::Benchmark(command) => benchmark::run(&command, &common, out),
        Command::Restore(what) => backup::run_restore(&what, &common, out),
        Command::Model(command) => model::run(&command, &common, out),
        Command::Embed(embed) => model::embed(&embed, &common, out),
        Command::Config(command) => operate::config(&command, &common, out),
        Command::Status => operate::status(&common, out),
        Command::Key(command) => operate::key(&command, out),
        Command::Corpus(command) => corpus::run(&command, &common, out),
        Command::Completions { shell } => operate::completions(shell),
    }
}

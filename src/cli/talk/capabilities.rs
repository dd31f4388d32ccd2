//! `caxton capabilities list | test`.

use serde_json::Value;

use super::super::args::{CapabilitiesCommand, CapabilitiesList, CapabilityTest, Common};
use super::super::backend::{Backend, Request, encoded};
use super::super::failure::{Exit, Failure};
use super::super::output::{Output, cell, counted, items};
use super::message::print_candidates;
use super::names;

/// Runs a command about what agents offer.
pub(in crate::cli) fn run(
    command: &CapabilitiesCommand,
    common: &Common,
    out: &mut Output,
) -> Result<(), Failure> {
    match command {
        CapabilitiesCommand::List(list) => print_list(list, common, out),
        CapabilitiesCommand::Test(test) => try_one(test, common, out),
    }
}

fn print_list(list: &CapabilitiesList, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get("/api/v1/capabilities")
        .with_some("capability", list.capability.as_deref())
        .with_some("agent_id", list.agent.as_deref())
        .with_some("version", list.version.as_deref());
    let backend = Backend::open(common, false)?;
    let mut answer = backend.ask(request.clone())?;
    let total = answer["total"].as_u64().unwrap_or_default();
    while (items(&answer, "capabilities").len() as u64) < total {
        let offset = items(&answer, "capabilities").len().to_string();
        let next = backend.ask(request.clone().with("offset", &offset))?;
        let page = items(&next, "capabilities").to_vec();
        if page.is_empty() {
            break;
        }
        if let Some(rows) = answer["capabilities"].as_array_mut() {
            rows.extend(page);
        }
    }
    if out.is_json() {
        return out.json(&answer);
    }
    let capabilities = items(&answer, "capabilities");
    let rows = capabilities.iter().flat_map(|row| items(row, "providers")).map(provider);
    out.table(&["capability", "agent", "version", "priority", "health", "status"], rows.collect())?;
    let noun = if capabilities.len() == 1 { "capability" } else { "capabilities" };
    out.line(format_args!("{} {noun}", capabilities.len()))
}

fn provider(row: &Value) -> Vec<String> {
    ["capability", "agent_id", "version", "priority", "health", "agent_status"]
        .map(|name| cell(row, name))
        .to_vec()
}

fn try_one(test: &CapabilityTest, common: &Common, out: &mut Output) -> Result<(), Failure> {
    let request = Request::get(&format!("/api/v1/capabilities/{}", encoded(&test.name)))
        .with_some("routing_strategy", test.strategy.map(super::super::args::StrategyName::as_str))
        .with_some("version", test.version.as_deref());
    let answer = Backend::open(common, false)?.ask(request)?;
    let routing = &answer["routing"];
    let reaches = names(routing, "would_reach");
    if out.is_json() {
        out.json(&answer)?;
    } else {
        let [capability, strategy] = ["capability", "routing_strategy"].map(|name| cell(&answer, name));
        let who = if reaches.is_empty() { "nobody" } else { &reaches };
        let all = counted(items(&answer, "providers").len(), "provider");
        out.line(format_args!("a message for {capability} would reach {who} of {all}, by {strategy}"))?;
        out.line(cell(routing, "reason"))?;
        print_candidates(routing, out)?;
    }
    if reaches.is_empty() {
        let message = format!("{}: {}", cell(&answer, "capability"), cell(routing, "reason"));
        return Err(Failure::new(Exit::Failed, message));
    }
    Ok(())
}

//! What a model should know before it answers: the best of four sources within a budget of tokens, and a record of it.

use std::fmt::Write as _;

use caxton_events::Seq;
use caxton_events::conversation::Performative;
use caxton_events::turn::{ContextKind, ContextPart};

use super::prompt::Values;
use crate::llm::{Fact, ToolSpec};

/// Characters of a token, on average.
const TOKEN_CHARS: usize = 4;

/// Tokens that a text takes, estimated: a quarter of its characters.
pub fn tokens(text: &str) -> u32 {
    text.chars().count().div_ceil(TOKEN_CHARS) as u32
}

/// An earlier message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Where it stands.
    pub seq: Seq,
    /// Who said it.
    pub sender: String,
    /// What it does.
    pub performative: Performative,
    /// What it says.
    pub text: String,
}

/// Who offers a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The capability.
    pub capability: String,
    /// Its providers.
    pub agents: Vec<String>,
}

/// What the sources gave; an error is why one gave nothing, and a missing one was not asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gathered {
    /// Earlier messages, the oldest first.
    pub history: Option<Result<Vec<Said>, String>>,
    /// What memory knows, the best first.
    pub memory: Option<Result<Vec<Fact>, String>>,
    /// Who can do what, the most useful first.
    pub capabilities: Option<Result<Vec<Offered>, String>>,
    /// Tools the agent may call. Their descriptions go to the model as tools, and count here.
    pub tools: Option<Result<Vec<ToolSpec>, String>>,
    /// Which further tools its file allows that are not there, and why.
    pub tools_missing: Option<String>,
}

/// Tokens that there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// For everything.
    pub all: u32,
    /// Of these, what instructions and message take.
    pub prompts: u32,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    /// What each source gave.
    pub parts: Vec<ContextPart>,
    /// Texts by the names of placeholders: `conversation_history`, `memory_context`, and `context` with everything.
    pub texts: Values,
    /// Facts in the context, the best first.
    pub facts: Vec<Fact>,
    /// Tools in the context.
    pub tools: Vec<ToolSpec>,
    /// Names of tools that there is no room for.
    pub tools_left_out: Vec<String>,
}

/// One thing that a source knows.
struct Item {
    name: String,
    text: String,
    tokens: u32,
    taken: bool,
}

/// The items of a source, in the order in which they are taken.
struct Shelf {
    kind: ContextKind,
    /// Percent of what tools and prompts leave that no other source takes from it.
    share: u32,
    /// Whether nothing is taken behind an item that does not fit.
    contiguous: bool,
    items: Vec<Item>,
    unavailable: Option<String>,
    tokens: u32,
}

/// Chooses what fits into `budget`.
///
/// Tools come first, out of what the prompts leave, and of half of it all in any case: an agent without a tool that it may
/// call does something else than its file says. Of what they leave, each other source has a share that is its own; what one
/// leaves goes to the others in their order: the conversation, then memory and capabilities. Items are taken whole. Of the
/// conversation the newest messages are taken, without gaps.
pub fn assemble(gathered: Gathered, budget: Budget) -> Context {
    let history = shelf(ContextKind::History, 45, gathered.history.as_ref(), |said| {
        (said.seq.to_string(), format!("{} ({}): {}\n", said.sender, said.performative, said.text))
    });
    let memory = shelf(ContextKind::Memory, 35, gathered.memory.as_ref(), |fact| {
        (fact.source.clone(), format!("- [{}] {}: {}\n", fact.source, fact.entity, fact.text))
    });
    let capabilities = shelf(ContextKind::Capabilities, 10, gathered.capabilities.as_ref(), |offer| {
        let agents = offer.agents.join(", ");
        (format!("capability:{}", offer.capability), format!("- {}: {agents}\n", offer.capability))
    });
    let mut tools = shelf(ContextKind::Tools, 0, gathered.tools.as_ref(), |tool| {
        (format!("tool:{}", tool.name), format!("{} {} {}", tool.name, tool.description, tool.parameters))
    });
    if let (Some(tools), Some(missing)) = (&mut tools, &gathered.tools_missing) {
        tools.unavailable = Some(missing.clone());
    }
    let behind_prompts = budget.all.saturating_sub(budget.prompts);
    let by_tools = tools.as_mut().map_or(0, |tools| tools.take(behind_prompts.max(budget.all / 2)));
    let room = behind_prompts.saturating_sub(by_tools);
    let mut shelves: Vec<Shelf> = [history, memory, capabilities].into_iter().flatten().collect();
    for shelf in &mut shelves {
        if shelf.kind == ContextKind::History {
            shelf.items.reverse();
        }
    }
    let mut left = room;
    for shelf in &mut shelves {
        let share = (u64::from(room) * u64::from(shelf.share) / 100) as u32;
        left -= shelf.take(share.min(left));
    }
    for shelf in &mut shelves {
        left -= shelf.take(left);
    }
    for shelf in &mut shelves {
        if shelf.kind == ContextKind::History {
            shelf.items.reverse();
        }
    }
    shelves.extend(tools);
    chosen(&shelves, gathered)
}

fn shelf<T>(
    kind: ContextKind,
    share: u32,
    found: Option<&Result<Vec<T>, String>>,
    item: impl Fn(&T) -> (String, String),
) -> Option<Shelf> {
    let found = found?;
    let items = found.iter().flatten().map(|one| {
        let (name, text) = item(one);
        Item { tokens: tokens(&text), name, text, taken: false }
    });
    Some(Shelf {
        kind,
        share,
        contiguous: kind == ContextKind::History,
        items: items.collect(),
        unavailable: found.as_ref().err().cloned(),
        tokens: 0,
    })
}

impl Shelf {
    /// Takes items that are not taken yet while they fit; the tokens they take.
    fn take(&mut self, budget: u32) -> u32 {
        let mut taken = 0;
        for item in self.items.iter_mut().filter(|item| !item.taken) {
            if taken + item.tokens > budget {
                if self.contiguous {
                    break;
                }
                continue;
            }
            item.taken = true;
            taken += item.tokens;
        }
        self.tokens += taken;
        taken
    }

    fn text(&self) -> String {
        self.items.iter().filter(|item| item.taken).map(|item| item.text.as_str()).collect()
    }
}

fn chosen(shelves: &[Shelf], gathered: Gathered) -> Context {
    let mut context = Context::default();
    let mut all = String::new();
    for shelf in shelves {
        let used: Vec<String> =
            shelf.items.iter().filter(|item| item.taken).map(|item| item.name.clone()).collect();
        context.parts.push(ContextPart {
            kind: shelf.kind,
            left_out: (shelf.items.len() - used.len()) as u32,
            used,
            tokens: shelf.tokens,
            unavailable: shelf.unavailable.clone(),
        });
        let title = match shelf.kind {
            ContextKind::History => "Said before in this conversation",
            ContextKind::Memory => "What memory knows",
            ContextKind::Capabilities => "What other agents can do",
            ContextKind::Tools => continue,
        };
        let text = shelf.text();
        match shelf.kind {
            ContextKind::History => _ = context.texts.insert("conversation_history".to_owned(), text.clone()),
            ContextKind::Memory => _ = context.texts.insert("memory_context".to_owned(), text.clone()),
            ContextKind::Capabilities | ContextKind::Tools => (),
        }
        if !text.is_empty() {
            let _ = write!(all, "{title}:\n{text}\n");
        }
    }
    context.texts.insert("context".to_owned(), all.trim_end().to_owned());
    let taken = |kind: ContextKind| {
        shelves
            .iter()
            .filter(move |shelf| shelf.kind == kind)
            .flat_map(|shelf| &shelf.items)
            .map(|item| item.taken)
    };
    let facts = gathered.memory.and_then(Result::ok).unwrap_or_default().into_iter();
    let tools = gathered.tools.and_then(Result::ok).unwrap_or_default().into_iter();
    context.facts =
        facts.zip(taken(ContextKind::Memory)).filter_map(|(fact, taken)| taken.then_some(fact)).collect();
    for (tool, taken) in tools.zip(taken(ContextKind::Tools)) {
        if taken {
            context.tools.push(tool);
        } else {
            context.tools_left_out.push(tool.name);
        }
    }
    context
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(seq: u64, text: &str) -> Said {
        Said {
            seq: Seq(seq),
            sender: "bob".to_owned(),
            performative: Performative::Inform,
            text: text.to_owned(),
        }
    }

    fn fact(source: &str, text: &str) -> Fact {
        Fact {
            source: source.to_owned(),
            entity: "bees".to_owned(),
            text: text.to_owned(),
            score: 1.0,
            similarity: None,
        }
    }

    fn part(context: &Context, kind: ContextKind) -> &ContextPart {
        context.parts.iter().find(|part| part.kind == kind).unwrap()
    }

    #[test]
    fn a_token_is_four_characters() {
        for (text, count) in [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("éééé", 1)] {
            assert_eq!(tokens(text), count, "{text}");
        }
    }

    fn tool(name: &str, description: &str) -> ToolSpec {
        let (name, description) = (name.to_owned(), description.to_owned());
        ToolSpec { name, description, parameters: serde_json::json!({}) }
    }

    const fn room(all: u32) -> Budget {
        Budget { all, prompts: 0 }
    }

    #[test]
    fn everything_is_used_and_named_while_it_fits() {
        let tool = tool("memory", "Search.");
        let offered = Offered { capability: "summarise".to_owned(), agents: vec!["sue".to_owned()] };
        let context = assemble(
            Gathered {
                history: Some(Ok(vec![said(7, "hello"), said(9, "bye")])),
                memory: Some(Ok(vec![fact("obs_5", "they dance")])),
                capabilities: Some(Ok(vec![offered])),
                tools: Some(Ok(vec![tool.clone()])),
                tools_missing: None,
            },
            room(1_000),
        );
        let used: Vec<&[String]> = context.parts.iter().map(|part| part.used.as_slice()).collect();
        assert_eq!(used, [&["#7", "#9"][..], &["obs_5"], &["capability:summarise"], &["tool:memory"]]);
        assert_eq!(context.texts["conversation_history"], "bob (INFORM): hello\nbob (INFORM): bye\n");
        assert_eq!(context.texts["memory_context"], "- [obs_5] bees: they dance\n");
        let all = "Said before in this conversation:\nbob (INFORM): hello\nbob (INFORM): bye\n\n\
                   What memory knows:\n- [obs_5] bees: they dance\n\n\
                   What other agents can do:\n- summarise: sue";
        assert_eq!(context.texts["context"], all);
        assert_eq!((context.facts.len(), context.tools), (1, vec![tool]));
    }

    #[test]
    fn a_source_that_fails_is_named_and_passed_over() {
        let memory = Some(Err("the index is being rebuilt".to_owned()));
        let gathered = Gathered { history: Some(Ok(vec![said(7, "x")])), memory, ..Gathered::default() };
        let context = assemble(gathered, room(99));
        assert_eq!(part(&context, ContextKind::History).used, ["#7"]);
        let memory = part(&context, ContextKind::Memory);
        assert_eq!(memory.unavailable.as_deref(), Some("the index is being rebuilt"));
        assert_eq!((context.parts.len(), memory.used.len(), memory.left_out), (2, 0, 0));
    }

    #[test]
    fn the_newest_messages_are_taken_without_gaps() {
        let long = "x".repeat(4_000);
        let history = vec![said(1, "a"), said(2, &long), said(3, "b"), said(4, "c")];
        let context = assemble(Gathered { history: Some(Ok(history)), ..Gathered::default() }, room(200));
        let part = part(&context, ContextKind::History);
        assert_eq!((part.used.as_slice(), part.left_out), (&["#3".to_owned(), "#4".to_owned()][..], 2));
    }

    #[test]
    fn a_long_conversation_leaves_memory_its_share() {
        let history = (1..=100).map(|seq| said(seq, &"y".repeat(100))).collect();
        let memory = (1..=100).map(|n| fact(&format!("obs_{n}"), &"z".repeat(100))).collect();
        let context = assemble(
            Gathered { history: Some(Ok(history)), memory: Some(Ok(memory)), ..Gathered::default() },
            room(1_000),
        );
        let (history, memory) = (part(&context, ContextKind::History), part(&context, ContextKind::Memory));
        assert!(memory.tokens >= 300 && history.tokens >= 450, "{history:?} {memory:?}");
        assert_eq!(memory.used.first().map(String::as_str), Some("obs_1"));
    }

    #[test]
    fn tools_have_their_place_before_everything_else_and_one_that_alone_is_too_much_is_named() {
        let words = "w".repeat(400);
        let tools = vec![tool("first", &words), tool("huge", &words.repeat(11)), tool("last", &words)];
        for (prompts, memories) in [(0, 7), (300, 4), (5_000, 0)] {
            let memory = (1..=100).map(|n| fact(&format!("obs_{n}"), &"z".repeat(380))).collect();
            let gathered =
                Gathered { memory: Some(Ok(memory)), tools: Some(Ok(tools.clone())), ..Gathered::default() };
            let context = assemble(gathered, Budget { all: 1_000, prompts });
            let names: Vec<&str> = context.tools.iter().map(|tool| tool.name.as_str()).collect();
            assert_eq!(
                (names.as_slice(), context.facts.len()),
                (&["first", "last"][..], memories),
                "{prompts}"
            );
            assert_eq!(context.tools_left_out, ["huge"]);
            assert_eq!(part(&context, ContextKind::Tools).left_out, 1);
        }
    }

    #[test]
    fn tools_have_what_the_prompts_leave_and_a_half_in_any_case() {
        // They take 103 and 102 tokens.
        let tools = ["first", "last"].map(|name| tool(name, &"w".repeat(400))).to_vec();
        for (prompts, left_out) in [(95, &[][..]), (96, &["last"]), (250, &["last"]), (5_000, &["last"])] {
            let gathered = Gathered { tools: Some(Ok(tools.clone())), ..Gathered::default() };
            let context = assemble(gathered, Budget { all: 300, prompts });
            assert_eq!(context.tools_left_out, left_out, "{prompts}");
        }
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_nothing_is_lost_from_the_record(
            history in proptest::collection::vec(0_usize..300, 0..12),
            memory in proptest::collection::vec(0_usize..300, 0..12),
            budget in 0_u32..500,
        ) {
            let all = (history.len() + memory.len()) as u32;
            let context = assemble(
                Gathered {
                    history: Some(Ok(history.iter().zip(1..).map(|(len, seq)| said(seq, &"h".repeat(*len))).collect())),
                    memory: Some(Ok(memory.iter().map(|len| fact("obs_1", &"m".repeat(*len))).collect())),
                    ..Gathered::default()
                },
                room(budget),
            );
            let used: u32 = context.parts.iter().map(|part| part.tokens).sum();
            prop_assert!(used <= budget);
            let counted: u32 = context.parts.iter().map(|part| part.used.len() as u32 + part.left_out).sum();
            prop_assert_eq!(counted, all);
            prop_assert_eq!(context.facts.len(), part(&context, ContextKind::Memory).used.len());
        }
    }
}

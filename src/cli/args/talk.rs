//! The commands about messages, conversations, what agents offer, and talking to them.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::past::At;

/// Commands about messages.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MessageCommand {
    /// Send a message to agents, or to whoever offers a capability
    // `--version` is the version of what is offered here.
    #[command(disable_version_flag = true, after_help = SEND_EXAMPLES)]
    Send(Box<MessageSend>),
}

const SEND_EXAMPLES: &str = "\
Examples:
  caxton message send --from ada --to bob 'how many cups?'
  caxton message send --from ada --to bob --wait=60 'how many cups?'
  caxton message send --from ada --capability draw-plots --strategy least_loaded --explain 'sin(x)'
  echo '{\"cups\": 3}' | caxton message send --from bob --to ada --as-json \\
      --conversation conv-0199… --in-reply-to 0199… -";

/// `caxton message send`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("addressee").required(true).args(["to", "capability"])))]
pub(in crate::cli) struct MessageSend {
    /// What it says, `-` to read it from standard input; what begins with { or [ is JSON where it can be read as such
    #[arg(value_name = "CONTENT")]
    pub(in crate::cli) content: String,
    /// The agent that sends; a new name is registered
    #[arg(long, value_name = "NAME", env = "CAXTON_AGENT")]
    pub(in crate::cli) from: String,
    /// The workspace of the sender
    #[arg(long, value_name = "NAME", env = "CAXTON_WORKSPACE")]
    pub(in crate::cli) workspace: Option<String>,
    /// An agent that gets it; may be given again
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(in crate::cli) to: Vec<String>,
    /// Send it to whoever offers this
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) capability: Option<String>,
    /// How one of several providers is chosen [default: the best match]
    #[arg(long, value_enum, value_name = "STRATEGY", conflicts_with = "to")]
    pub(in crate::cli) strategy: Option<StrategyName>,
    /// Only providers of this version: 2 is any 2.x
    #[arg(long, value_name = "VERSION", conflicts_with = "to")]
    pub(in crate::cli) version: Option<String>,
    /// What it does: REQUEST, QUERY, INFORM and so on [default: REQUEST; INFORM for an answer]
    #[arg(long, short = 'p', value_name = "WORD")]
    pub(in crate::cli) performative: Option<String>,
    /// The content is JSON, also where it does not begin with { or [
    #[arg(long)]
    pub(in crate::cli) as_json: bool,
    /// The conversation it belongs to; without it a new one begins
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) conversation: Option<String>,
    /// What a new conversation is about
    #[arg(long, value_name = "TEXT", conflicts_with = "conversation")]
    pub(in crate::cli) topic: Option<String>,
    /// The message that it answers: its message id or its reply-with
    #[arg(long, value_name = "ID", requires = "conversation")]
    pub(in crate::cli) in_reply_to: Option<String>,
    /// The word that answers are to carry
    #[arg(long, value_name = "WORD")]
    pub(in crate::cli) reply_with: Option<String>,
    /// An answer is wanted by then: a time (RFC 3339) or a span from now, as in 90s or 5m
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) reply_by: Option<String>,
    /// It need not be delivered from then on: a time or a span from now
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) expires: Option<String>,
    /// How urgent it is
    #[arg(long, value_enum, value_name = "PRIORITY")]
    pub(in crate::cli) priority: Option<PriorityName>,
    /// A UUID of yours: sent again with it, the message is recognised and not doubled
    #[arg(long, value_name = "UUID")]
    pub(in crate::cli) message_id: Option<String>,
    /// Show who was looked at and why
    #[arg(long)]
    pub(in crate::cli) explain: bool,
    /// Wait for the answers, so many seconds [default: 30]; they are printed and acknowledged
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "30",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(in crate::cli) wait: Option<u64>,
}

/// How one of several providers is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(in crate::cli) enum StrategyName {
    /// Health, load, speed, success and priority weighed together
    BestMatch,
    /// The highest priority, less for load and bad health
    Priority,
    /// One after the other
    RoundRobin,
    /// The fewest messages under way
    LeastLoaded,
    /// The shortest time to answer so far
    FastestResponse,
    /// All of them
    Broadcast,
    /// The first by priority that can be reached
    Failover,
    /// Who takes part in the conversation already, else the best match
    ContextContinuity,
}

impl StrategyName {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::BestMatch => "best_match",
            Self::Priority => "priority",
            Self::RoundRobin => "round_robin",
            Self::LeastLoaded => "least_loaded",
            Self::FastestResponse => "fastest_response",
            Self::Broadcast => "broadcast",
            Self::Failover => "failover",
            Self::ContextContinuity => "context_continuity",
        }
    }
}

/// How urgent a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum PriorityName {
    /// When there is time
    Low,
    /// As usual
    Normal,
    /// Before the usual
    High,
    /// Before everything
    Critical,
}

impl PriorityName {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Which page of a list.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct PageOf {
    /// Rows at most [default: 50, or what the server is set to]
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(in crate::cli) limit: Option<u16>,
    /// Go on where an earlier page ended
    #[arg(long, value_name = "CURSOR")]
    pub(in crate::cli) cursor: Option<String>,
}

/// Commands about conversations.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ConversationsCommand {
    /// List conversations, the latest opened first
    #[command(after_help = "\
Examples:
  caxton conversations list --participant ada --status active
  caxton --json conversations list -n 1 | jq -r '.conversations[0].conversation_id'")]
    List(ConversationsList),
    /// Show what was said in a conversation
    #[command(after_help = "\
Examples:
  caxton conversations show conv-0199…
  caxton conversations show conv-0199… --follow     # and what comes, until it ends or Ctrl-C")]
    Show(ConversationShow),
}

/// Which conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ConversationStatus {
    /// Still open
    Active,
    /// Over, and not archived
    Ended,
    /// Put away
    Archived,
    /// Every one
    All,
}

impl ConversationStatus {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Ended => "ended",
            Self::Archived => "archived",
            Self::All => "all",
        }
    }
}

/// `caxton conversations list`
#[derive(Debug, Args)]
pub(in crate::cli) struct ConversationsList {
    /// Only conversations that this agent takes part in
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) participant: Option<String>,
    /// Only these [default: all but archived ones]
    #[arg(long, value_enum, value_name = "STATUS")]
    pub(in crate::cli) status: Option<ConversationStatus>,
    #[command(flatten)]
    pub(in crate::cli) at: At,
    #[command(flatten)]
    pub(in crate::cli) page: PageOf,
}

/// `caxton conversations show`
#[derive(Debug, Args)]
pub(in crate::cli) struct ConversationShow {
    /// The conversation
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: String,
    /// Go on with what is said, until the conversation ends or Ctrl-C
    #[arg(long, short = 'f', conflicts_with = "as_of")]
    pub(in crate::cli) follow: bool,
    #[command(flatten)]
    pub(in crate::cli) at: At,
}

/// Commands about what agents offer.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CapabilitiesCommand {
    /// List who offers what
    #[command(disable_version_flag = true)]
    List(CapabilitiesList),
    /// Say which agent would get a message now, and why; nothing is sent
    #[command(
        disable_version_flag = true,
        after_help = "\
Examples:
  caxton capabilities test draw-plots
  caxton capabilities test draw-plots --strategy round_robin --version 2

Fails (exit code 1) when somebody offers it but nobody can take a message now."
    )]
    Test(CapabilityTest),
}

/// `caxton capabilities list`
#[derive(Debug, Args)]
pub(in crate::cli) struct CapabilitiesList {
    /// Only this capability
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) capability: Option<String>,
    /// Only what this agent offers
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) agent: Option<String>,
    /// Only offers of exactly this version
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) version: Option<String>,
}

/// `caxton capabilities test`
#[derive(Debug, Args)]
pub(in crate::cli) struct CapabilityTest {
    /// The capability
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// How one of several providers is chosen [default: the best match]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    pub(in crate::cli) strategy: Option<StrategyName>,
    /// Only providers of this version: 2 is any 2.x
    #[arg(long, value_name = "VERSION")]
    pub(in crate::cli) version: Option<String>,
}

/// Commands about messages that were given up.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DeadLettersCommand {
    /// List messages that did not reach a receiver, and why
    List(DeadLettersList),
    /// Send them again, as new messages
    #[command(after_help = "\
Examples:
  caxton deadletters replay 1042
  caxton deadletters replay --all --reason agent_stopped")]
    Replay(DeadLettersReplay),
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct WhichLetters {
    /// Only those that this agent did not get
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) receiver: Option<String>,
    /// Only those given up for this reason, such as `no_provider` or `agent_stopped`
    #[arg(long, value_name = "REASON")]
    pub(in crate::cli) reason: Option<String>,
}

/// `caxton deadletters list`
#[derive(Debug, Args)]
pub(in crate::cli) struct DeadLettersList {
    #[command(flatten)]
    pub(in crate::cli) which: WhichLetters,
    /// Leave out what was sent again already
    #[arg(long)]
    pub(in crate::cli) pending: bool,
    #[command(flatten)]
    pub(in crate::cli) page: PageOf,
}

/// `caxton deadletters replay`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("letters").required(true).args(["seqs", "all"])))]
pub(in crate::cli) struct DeadLettersReplay {
    /// Where each stands in the log, as the list shows it
    #[arg(value_name = "SEQ")]
    pub(in crate::cli) seqs: Vec<u64>,
    /// Everything that was not sent again yet
    #[arg(long)]
    pub(in crate::cli) all: bool,
    /// Also what was sent again before
    #[arg(long, conflicts_with = "all")]
    pub(in crate::cli) again: bool,
    #[command(flatten)]
    pub(in crate::cli) which: WhichLetters,
}

/// `caxton agents logs`
#[derive(Debug, Args)]
pub(in crate::cli) struct AgentLogs {
    /// The agent
    #[arg(value_name = "NAME")]
    pub(in crate::cli) name: String,
    /// The newest events shown at most
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub(in crate::cli) lines: u32,
    /// Go on with what it does, until Ctrl-C
    #[arg(long, short = 'f')]
    pub(in crate::cli) follow: bool,
    /// Show texts whole instead of one line of each
    #[arg(long)]
    pub(in crate::cli) full: bool,
}

/// `caxton chat`
#[derive(Debug, Args)]
pub(in crate::cli) struct Chat {
    /// The agent to talk to
    #[arg(value_name = "AGENT")]
    pub(in crate::cli) agent: String,
    /// Your name among the agents [default: $USER]
    #[arg(long = "as", value_name = "NAME")]
    pub(in crate::cli) name: Option<String>,
    /// The workspace you work in
    #[arg(long, value_name = "NAME", env = "CAXTON_WORKSPACE")]
    pub(in crate::cli) workspace: Option<String>,
    /// Go on with this conversation
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) conversation: Option<String>,
    /// What each line is
    #[arg(long, short = 'p', value_enum, value_name = "WORD", default_value = "request")]
    pub(in crate::cli) performative: Asking,
    /// Wait so many seconds for an answer before the next line is read
    #[arg(long, value_name = "SECONDS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(in crate::cli) timeout: u64,
}

/// What a line of a chat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Asking {
    /// Asks to do something
    Request,
    /// Asks what the agent knows
    Query,
}

impl Asking {
    /// As requests name it.
    pub(in crate::cli) const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "REQUEST",
            Self::Query => "QUERY",
        }
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::conversation::{Priority, Strategy};
    use clap::ValueEnum as _;

    use super::{PriorityName, StrategyName};

    #[test]
    fn every_word_of_the_rules_can_be_typed() {
        let strategies: Vec<_> = StrategyName::value_variants().iter().map(|name| name.as_str()).collect();
        assert_eq!(strategies, Strategy::WORDS);
        let priorities: Vec<_> = PriorityName::value_variants().iter().map(|name| name.as_str()).collect();
        assert_eq!(priorities, Priority::WORDS);
    }
}

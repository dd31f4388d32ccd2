//! What is to be said of `agents`, `conversation_processing`, `request_handling`, `llm` and `mcp_servers`.

use super::entries::{Entry, entry};

pub(super) const ENTRIES: &[Entry] = &[
    entry(
        "agents.directory",
        "Agents are read from the files of this folder, now and whenever they change.",
        "`caxton agents list`; caxton_agent_config_count",
    ),
    entry(
        "agents.strict",
        "An agent file with an unknown key or another doubtful part is refused instead of warned about.",
        "`caxton agents validate FILE`; files_rejected in POST /api/v1/config-agents/reload",
    ),
    entry(
        "agents.hot_reload_timeout",
        "A check of a changed file that took longer is thrown away: the old version goes on, and the file is judged again when it \
         changes.",
        "caxton_agent_reload_duration_seconds; `caxton agents list`",
    ),
    entry(
        "agents.validation_cache_size",
        "Judgements of so many files are kept by their content, so that an unchanged file is not judged again.",
        "caxton_agent_validation_cache_size, caxton_agent_validation_cache_hit_rate",
    ),
    entry(
        "agents.tool_call_timeout",
        "Limits of a tool call's time are cut to this, whoever set them, and never made longer; the usual one is \
         agents.default_limits.tool_call_timeout.",
        "caxton_agent_tool_calls_total{outcome=\"timeout\"}",
    ),
    entry(
        "agents.response_cache_ttl",
        "An answer of a model is given again to the same question for so long, to agents whose files say \
         performance.cache_responses: true; 0s never.",
        "caxton_llm_cache_hits_total, caxton_llm_cache_misses_total",
    ),
    entry(
        "agents.circuit_failures",
        "After so many failed turns in a row an agent gets no more messages for circuit_pause.",
        "`caxton agents show NAME`; GET /api/v1/capabilities/health",
    ),
    entry(
        "agents.circuit_pause",
        "An agent that was left alone gets one message after this time; when it answers it, the rest follow.",
        "`caxton agents show NAME`; GET /api/v1/capabilities/health",
    ),
    entry(
        "agents.max_agents",
        "Files beyond this number of agents are refused.",
        "files_rejected in POST /api/v1/config-agents/reload; caxton_agent_config_count",
    ),
    entry(
        "agents.memory_scope",
        "An agent whose file names no scope remembers for itself, its workspace or everybody, and so does a request that names none.",
        "memory_scope in GET /api/v1/config-agents/NAME",
    ),
    entry(
        "agents.default_limits.max_conversations",
        "An agent works on so many conversations at a time; messages of others wait in the queues.",
        "limits.max_conversations in GET /api/v1/config-agents/NAME; caxton_agent_queue_depth",
    ),
    entry(
        "agents.default_limits.max_memory_entities",
        "The memory tool refuses an agent one entity more than this.",
        "limits.max_memory_entities in GET /api/v1/config-agents/NAME",
    ),
    entry(
        "agents.default_limits.response_timeout",
        "A turn that takes longer is ended with a failure.",
        "limits.response_timeout in GET /api/v1/config-agents/NAME; caxton_agent_turns_total{outcome=\"failed\"}",
    ),
    entry(
        "agents.default_limits.tool_call_timeout",
        "A call of a tool by an agent whose file says nothing else fails after this time.",
        "limits.tool_call_timeout in GET /api/v1/config-agents/NAME",
    ),
    entry(
        "agents.default_limits.memory_search_timeout",
        "A search for an agent that takes longer is given up; the turn goes on without what it would have found.",
        "limits.memory_search_timeout in GET /api/v1/config-agents/NAME",
    ),
    entry(
        "agents.overrides",
        "Agents of a row's agent_type get the row's limits in place of the default ones.",
        "limits in GET /api/v1/config-agents/NAME",
    ),
    entry(
        "conversation_processing.batch_size",
        "Up to so many conversations are prepared together for their agents.",
        "caxton_agent_batch_conversations",
    ),
    entry(
        "conversation_processing.batch_timeout",
        "The first conversation of a batch waits so long for others, unless nothing else is being prepared.",
        "caxton_agent_batch_conversations, caxton_agent_queue_wait_seconds",
    ),
    entry(
        "conversation_processing.parallel_conversations",
        "So many conversations of a batch are prepared at the same time.",
        "caxton_agent_response_time_seconds under load",
    ),
    entry(
        "conversation_processing.memory_batch_search",
        "The searches of a batch run at the same time, so that their questions share passes of the model; else each conversation \
         searches for itself.",
        "caxton_embedding_texts_total by the count of caxton_embedding_generation_duration_seconds: texts of a pass",
    ),
    entry(
        "conversation_processing.embedding_batch_size",
        "The searches of a batch go to the model so many texts at a time.",
        "caxton_embedding_generation_duration_seconds",
    ),
    entry(
        "conversation_processing.conversation_cache_size",
        "What was said in so many conversations is kept, so that a turn does not read it from the log.",
        "caxton_agent_response_time_seconds",
    ),
    entry(
        "conversation_processing.context_cache_ttl",
        "What memory gave to a question is used again for so long, while nothing in memory changes; an agent's file may say otherwise.",
        "caxton_memory_search_latency_seconds: fewer searches",
    ),
    entry(
        "conversation_processing.response_cache_enabled",
        "Answers of models are kept for agents.response_cache_ttl, which is 0s unless it is set, for agents whose files say \
         performance.cache_responses: true; false turns that off.",
        "caxton_llm_cache_hits_total",
    ),
    entry(
        "request_handling.priority_queues.enabled",
        "Messages wait in one queue a priority, the most urgent served first; else in one queue for all.",
        "caxton_agent_queue_depth{queue}",
    ),
    entry(
        "request_handling.priority_queues.queues",
        "Each row is a queue: lower priorities are served first, a longer wait than max_latency counts as late, and a message \
         to a full queue gets 429.",
        "caxton_agent_queue_depth{queue}, caxton_agent_queue_late_total{queue}, caxton_agent_queue_refused_total{queue}",
    ),
    entry(
        "request_handling.classification.critical_capabilities",
        "Messages to these capabilities wait in the queue critical.",
        "caxton_agent_queue_wait_seconds{queue=\"critical\"}",
    ),
    entry(
        "request_handling.classification.high_capabilities",
        "Messages to these capabilities wait in the queue high.",
        "caxton_agent_queue_wait_seconds{queue=\"high\"}",
    ),
    entry(
        "request_handling.classification.normal_capabilities",
        "Messages to these capabilities wait in the queue normal, as those do that no list names.",
        "caxton_agent_queue_wait_seconds{queue=\"normal\"}",
    ),
    entry(
        "request_handling.classification.background_capabilities",
        "Messages to these capabilities wait in the queue background.",
        "caxton_agent_queue_wait_seconds{queue=\"background\"}",
    ),
    entry(
        "llm.default",
        "Agents whose files name no provider are answered by this one.",
        "caxton_llm_requests_total{provider}",
    ),
    entry(
        "llm.providers",
        "Each row is a language model that agents may name.",
        "caxton_llm_requests_total{provider}",
    ),
    entry(
        "llm.chain",
        "When the provider of an agent does not answer, these are asked in this order.",
        "caxton_llm_requests_total{provider}, caxton_llm_circuit_open{provider}",
    ),
    entry(
        "llm.cache_entries",
        "So many answers of all providers together are kept at most; the ones unused for longest go first.",
        "caxton_llm_cache_hits_total, caxton_llm_cache_misses_total",
    ),
    entry(
        "llm.cache_size",
        "The answers of all providers that are kept take so many bytes together at most.",
        "caxton_llm_cache_hits_total, caxton_llm_cache_misses_total",
    ),
    entry(
        "mcp_servers",
        "Each row is a server of tools that agents may be allowed to call; it is started or connected to at first use.",
        "caxton_mcp_server_starts_total{server}; tools in GET /api/v1/config-agents/NAME",
    ),
];

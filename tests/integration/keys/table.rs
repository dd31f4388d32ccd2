//! From each key to the tests that show what it does, and which keys do nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use caxton::config::{Explained, Sources, explain, known_keys, load};

/// Shows that a key reaches the part that it is for; the test beside it shows what that part does with it.
const WIRED: &str = "each_key_reaches_the_option_of_its_part";

/// Keys and the tests that see their effect.
const SHOWN_BY: &[(&str, &[&str])] = &[
    (
        "advanced_memory_tuning.embedding_advanced.batch_optimization",
        &[WIRED, "texts_of_like_length_share_a_pass_where_that_is_asked_for"],
    ),
    (
        "advanced_memory_tuning.sqlite_advanced.analyze_frequency",
        &["statistics_of_the_planner_are_made_as_often_as_the_file_says"],
    ),
    (
        "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
        &[WIRED, "upkeep_gives_space_back_and_changes_no_answer"],
    ),
    (
        "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_interval",
        &[WIRED, "every_setting_reads_back_as_it_was_set"],
    ),
    (
        "advanced_memory_tuning.sqlite_advanced.wal_checkpoint_strategy",
        &[
            WIRED,
            "a_commit_waits_for_the_readers_of_an_old_state_where_it_is_told_to_and_the_journal_begins_anew",
        ],
    ),
    (
        "advanced_memory_tuning.vector_similarity.early_termination",
        &[WIRED, "a_large_scope_gets_an_index_that_finds_what_a_scan_finds"],
    ),
    (
        "advanced_memory_tuning.vector_similarity.scan_threads",
        &["the_model_and_scans_have_the_threads_of_the_file"],
    ),
    ("agents.circuit_failures", &["an_open_circuit_is_recorded_and_passed_over_also_after_a_restart"]),
    ("agents.circuit_pause", &["a_circuit_closes_when_a_message_that_is_tried_is_answered"]),
    (
        "agents.default_limits.max_conversations",
        &["limits_of_an_agent_are_those_of_the_file", "turns_run_beside_each_other_within_the_limits"],
    ),
    (
        "agents.default_limits.max_memory_entities",
        &[
            "limits_of_an_agent_are_those_of_the_file",
            "an_agent_that_owns_as_many_entities_as_it_may_adds_to_those",
        ],
    ),
    (
        "agents.default_limits.memory_search_timeout",
        &["limits_of_an_agent_are_those_of_the_file", "a_search_that_takes_too_long_is_given_up"],
    ),
    (
        "agents.default_limits.response_timeout",
        &[
            "limits_of_an_agent_are_those_of_the_file",
            "a_model_that_hangs_fails_its_turn_alone_and_holds_up_no_other_agent",
        ],
    ),
    (
        "agents.default_limits.tool_call_timeout",
        &["limits_of_an_agent_are_those_of_the_file", "a_tool_that_hangs_ends_at_its_time"],
    ),
    ("agents.directory", &["agents_are_those_of_the_files_folder_up_to_its_number"]),
    ("agents.hot_reload_timeout", &["a_check_that_takes_too_long_keeps_what_is_in_use"]),
    ("agents.max_agents", &["agents_are_those_of_the_files_folder_up_to_its_number"]),
    ("agents.memory_scope", &["limits_of_an_agent_are_those_of_the_file", WIRED]),
    ("agents.overrides", &["limits_of_an_agent_are_those_of_the_file"]),
    (
        "agents.response_cache_ttl",
        &["a_kept_answer_is_given_again_where_the_file_and_the_configuration_say_so"],
    ),
    ("agents.strict", &["doubtful_files_are_refused_where_the_file_says_so"]),
    (
        "agents.tool_call_timeout",
        &["limits_of_an_agent_are_those_of_the_file", "a_tool_that_hangs_ends_at_its_time"],
    ),
    ("agents.validation_cache_size", &["judgements_are_kept_by_content"]),
    ("api_optimization.default_format", &["bodies_have_the_format_that_the_file_offers"]),
    ("api_optimization.enable_msgpack", &["bodies_have_the_format_that_the_file_offers"]),
    ("api_optimization.default_page_size", &["pages_have_the_size_of_the_file"]),
    ("api_optimization.detailed_errors", &["errors_are_as_detailed_as_the_file_says"]),
    ("api_optimization.max_page_size", &["pages_have_the_size_of_the_file"]),
    ("auth.keys", &["keys_of_the_file_open_the_door_and_no_others"]),
    ("auth.keys_file", &["keys_of_the_file_open_the_door_and_no_others"]),
    (
        "conversation_processing.batch_size",
        &["the_scheduler_does_what_the_configuration_says", "a_full_batch_goes_at_once"],
    ),
    (
        "conversation_processing.batch_timeout",
        &["the_scheduler_does_what_the_configuration_says", "a_timer_flushes_what_nothing_more_comes_to"],
    ),
    (
        "conversation_processing.context_cache_ttl",
        &["what_memory_gave_is_used_again_as_long_as_the_file_says"],
    ),
    (
        "conversation_processing.conversation_cache_size",
        &["what_was_said_is_kept_of_as_many_conversations_as_the_cache_holds"],
    ),
    (
        "conversation_processing.embedding_batch_size",
        &["questions_are_asked_so_many_together_and_keep_their_order"],
    ),
    (
        "conversation_processing.memory_batch_search",
        &["the_scheduler_does_what_the_configuration_says", "memory_is_searched_once_for_a_batch"],
    ),
    (
        "conversation_processing.parallel_conversations",
        &[
            "the_scheduler_does_what_the_configuration_says",
            "so_many_conversations_of_a_batch_are_prepared_at_a_time",
        ],
    ),
    (
        "conversation_processing.response_cache_enabled",
        &["a_kept_answer_is_given_again_where_the_file_and_the_configuration_say_so"],
    ),
    ("embedding.engine", &[WIRED, "candle_agrees_with_pytorch"]),
    ("embedding.keyword_only", &["a_server_listens_where_its_file_says"]),
    ("http_server.bind_address", &["a_server_listens_where_its_file_says"]),
    ("http_server.compression_level", &["answers_are_compressed_as_the_file_says"]),
    ("http_server.compression_threshold", &["answers_are_compressed_as_the_file_says"]),
    ("http_server.connection_timeout", &[WIRED, "a_client_that_says_nothing_is_closed"]),
    ("http_server.enable_compression", &["answers_are_compressed_as_the_file_says"]),
    ("http_server.etag_enabled", &["reads_carry_a_tag_unless_the_file_says_no"]),
    ("http_server.header_buffer_size", &["the_longest_head_is_that_of_either_buffer"]),
    ("http_server.keep_alive_timeout", &[WIRED, "a_connection_that_is_idle_is_closed"]),
    ("http_server.max_blocking_threads", &["no_more_threads_block_than_the_file_says"]),
    ("http_server.max_connections", &[WIRED, "a_connection_too_many_is_told_so"]),
    ("http_server.request_buffer_size", &["the_longest_head_is_that_of_either_buffer"]),
    ("http_server.worker_threads", &["requests_and_agents_have_the_threads_of_the_file"]),
    (
        "llm.cache_entries",
        &[
            "the_longest_unused_goes_first_and_errors_are_not_kept",
            "answers_are_kept_within_the_bounds_of_the_configuration",
        ],
    ),
    ("llm.cache_size", &["answers_are_kept_within_the_bounds_of_the_configuration"]),
    ("llm.chain", &["a_failing_provider_is_retried_then_the_chain_answers_then_it_is_asked_again"]),
    ("llm.default", &["a_failing_provider_is_retried_then_the_chain_answers_then_it_is_asked_again"]),
    ("llm.providers", &["a_failing_provider_is_retried_then_the_chain_answers_then_it_is_asked_again"]),
    ("log.cache_mb", &[WIRED, "a_second_scan_reads_the_medium_only_where_the_cache_is_small"]),
    (
        "log.durability",
        &[
            "the_report_says_what_a_power_cut_may_lose",
            "every_acknowledged_batch_survives_a_power_cut_at_every_operation",
        ],
    ),
    (
        "log.flush_interval",
        &[
            "the_report_says_what_a_power_cut_may_lose",
            "with_an_interval_a_crash_loses_only_what_came_after_the_last_sync",
        ],
    ),
    ("logging.filter", &["lines_of_the_log_are_as_the_file_says"]),
    ("logging.format", &["lines_of_the_log_are_as_the_file_says"]),
    ("mcp_servers", &["an_agent_uses_the_tools_of_a_server_and_outlives_what_the_server_does"]),
    ("memory.backend", &["what_only_one_value_can_be_is_refused_at_the_start"]),
    (
        "memory.embedding_config.aggressive_cleanup",
        &[WIRED, "the_least_recently_used_are_forgotten_down_to_the_threshold"],
    ),
    ("memory.embedding_config.batch_size", &[WIRED, "what_many_callers_wait_for_shares_a_batch"]),
    ("memory.embedding_config.cache_size", &[WIRED, "without_room_nothing_is_kept"]),
    (
        "memory.embedding_config.cleanup_threshold",
        &[WIRED, "the_least_recently_used_are_forgotten_down_to_the_threshold"],
    ),
    ("memory.embedding_config.embedding_ttl", &[WIRED, "a_query_asked_twice_runs_once_until_it_is_too_old"]),
    (
        "memory.embedding_config.max_sequence_length",
        &[WIRED, "a_text_is_cut_at_the_tokens_that_were_asked_for"],
    ),
    ("memory.embedding_config.model", &["what_only_one_value_can_be_is_refused_at_the_start"]),
    ("memory.embedding_config.model_path", &["a_folder_named_for_the_model_is_taken_at_its_word"]),
    (
        "memory.embedding_config.thread_count",
        &[
            "the_model_and_scans_have_the_threads_of_the_file",
            "as_many_batches_run_at_once_as_there_are_threads",
        ],
    ),
    ("memory.search.cache_size", &[WIRED, "answers_are_kept_as_the_file_says"]),
    ("memory.search.fusion", &[WIRED, "meaning_and_words_are_fused"]),
    ("memory.search.limit", &["a_search_is_bounded_and_widened_as_the_file_says"]),
    ("memory.search.max_limit", &["a_search_is_bounded_and_widened_as_the_file_says"]),
    ("memory.search.mode", &["a_search_is_bounded_and_widened_as_the_file_says"]),
    ("memory.search.neighbours", &["a_search_is_bounded_and_widened_as_the_file_says"]),
    ("memory.search.semantic_weight", &[WIRED, "meaning_and_words_are_fused"]),
    ("memory.sqlite_config.auto_vacuum", &["the_graphs_file_is_made_as_the_file_says"]),
    ("memory.sqlite_config.cache_size_mb", &[WIRED, "every_setting_reads_back_as_it_was_set"]),
    ("memory.sqlite_config.journal_size_limit_mb", &[WIRED, "every_setting_reads_back_as_it_was_set"]),
    ("memory.sqlite_config.mmap_size_mb", &["the_graphs_file_is_mapped_where_the_file_says_so"]),
    ("memory.sqlite_config.page_size", &["the_graphs_file_is_made_as_the_file_says"]),
    ("memory.sqlite_config.synchronous", &[WIRED, "every_setting_reads_back_as_it_was_set"]),
    ("memory.sqlite_config.temp_store", &[WIRED, "every_setting_reads_back_as_it_was_set"]),
    ("memory.sqlite_config.wal_mode", &["the_graphs_file_is_made_as_the_file_says"]),
    ("memory_allocation.embedding_model.huge_pages", &["the_model_lies_in_memory_as_the_file_says"]),
    ("memory_allocation.embedding_model.memory_mapping", &["the_model_lies_in_memory_as_the_file_says"]),
    ("memory_allocation.embedding_model.prefault_pages", &["the_model_lies_in_memory_as_the_file_says"]),
    (
        "memory_allocation.purge_delay",
        &["freed_memory_is_kept_for_so_long", "freed_memory_is_used_again_for_as_long_as_the_file_says"],
    ),
    ("memory_writes.compress_observations", &["long_events_are_compressed_as_the_file_says"]),
    ("memory_writes.compression_threshold", &["long_events_are_compressed_as_the_file_says"]),
    ("memory_writes.max_pending_writes", &[WIRED, "more_writes_than_may_wait_are_refused_at_once"]),
    ("memory_writes.max_transaction_size", &[WIRED, "a_step_holds_as_many_records_as_it_may"]),
    ("memory_writes.entity_batch_size", &[WIRED, "a_step_holds_as_many_records_as_it_may"]),
    ("memory_writes.relation_batch_size", &[WIRED, "a_step_holds_as_many_records_as_it_may"]),
    ("memory_writes.observation_batch_size", &[WIRED, "a_step_holds_as_many_records_as_it_may"]),
    (
        "memory_writes.embedding_batch_size",
        &[WIRED, "vectors_follow_in_steps_of_as_many_records_as_the_file_says"],
    ),
    (
        "memory_writes.transaction_timeout",
        &[WIRED, "a_step_that_takes_too_long_makes_the_next_ones_smaller_until_they_are_quick"],
    ),
    ("messaging.conversation_lifetime", &["a_conversation_ends_at_the_times_of_the_file"]),
    ("messaging.conversation_ttl", &["a_conversation_ends_at_the_times_of_the_file"]),
    ("messaging.max_message_size", &["a_message_is_no_longer_than_the_file_says"]),
    ("messaging.max_messages", &["a_conversation_has_the_messages_and_agents_of_the_file"]),
    ("messaging.max_participants", &["a_conversation_has_the_messages_and_agents_of_the_file"]),
    (
        "messaging.max_pending_requests",
        &[WIRED, "more_requests_than_may_wait_for_the_router_are_refused_at_once"],
    ),
    ("messaging.queue_size", &["an_inbox_holds_as_many_as_the_file_says"]),
    ("privacy.encrypt", &["payloads_are_encrypted_where_the_file_says_so"]),
    (
        "request_handling.classification.background_capabilities",
        &["a_listed_capability_decides_and_else_the_priority"],
    ),
    (
        "request_handling.classification.critical_capabilities",
        &["a_listed_capability_decides_and_else_the_priority"],
    ),
    (
        "request_handling.classification.high_capabilities",
        &["a_listed_capability_decides_and_else_the_priority"],
    ),
    (
        "request_handling.classification.normal_capabilities",
        &["a_listed_capability_decides_and_else_the_priority"],
    ),
    ("request_handling.priority_queues.enabled", &["without_priority_queues_there_is_one"]),
    (
        "request_handling.priority_queues.queues",
        &[
            "without_priority_queues_there_is_one",
            "a_full_queue_is_told_and_other_agents_go_on",
            "late_items_are_counted_by_queue",
        ],
    ),
    ("runtime.cpu_optimization.agent_worker_threads", &["requests_and_agents_have_the_threads_of_the_file"]),
    ("runtime.cpu_optimization.async_runtime", &["what_only_one_value_can_be_is_refused_at_the_start"]),
    ("runtime.cpu_optimization.tokio_worker_threads", &["requests_and_agents_have_the_threads_of_the_file"]),
    ("server.allowed_hosts", &["hosts_besides_this_machine_are_those_of_the_file"]),
    ("server.data_dir", &["a_data_directory_of_the_file_is_used"]),
    ("server.max_body_size", &["a_body_is_bounded_by_the_file"]),
    (
        "server.max_concurrent_conversations",
        &["the_scheduler_does_what_the_configuration_says", "turns_run_beside_each_other_within_the_limits"],
    ),
    ("server.metrics_port", &["a_server_listens_where_its_file_says"]),
    ("server.port", &["a_server_listens_where_its_file_says"]),
    ("server.request_timeout", &[WIRED, "an_answer_that_takes_too_long_is_a_timeout"]),
    ("server.shutdown_timeout", &[WIRED, "a_request_that_does_not_end_does_not_hold_up_the_end"]),
    ("server.wait_timeout", &["a_read_waits_for_its_position_as_long_as_the_file_says"]),
    ("http_server.cache_static_content", &["what_stays_the_same_may_be_kept_as_long_as_the_file_says"]),
    ("http_server.cache_ttl", &["what_stays_the_same_may_be_kept_as_long_as_the_file_says"]),
    ("runtime.cpu_optimization.memory_worker_threads", &["the_graph_is_read_by_as_many_as_the_file_says"]),
    (
        "advanced_memory_tuning.vector_similarity.precision_threshold",
        &[
            WIRED,
            "hits_that_are_nearly_as_near_are_ordered_by_number",
            "scores_within_a_step_are_equal_and_others_keep_their_order",
        ],
    ),
    (
        "advanced_memory_tuning.vector_similarity.algorithm",
        &[WIRED, "scores_say_what_was_measured_and_the_order_stays"],
    ),
    (
        "api_optimization.include_stack_traces",
        &[WIRED, "causes_are_told_of_failures_alone_and_only_where_that_is_asked_for"],
    ),
    ("memory.scaling.max_entities", &["a_limit_that_is_passed_is_told_of"]),
    ("memory.scaling.max_relations", &["a_limit_that_is_passed_is_told_of"]),
    ("memory.scaling.max_storage_mb", &[WIRED, "each_limit_that_is_passed_is_named_with_what_there_is"]),
    (
        "memory.scaling.max_search_latency_ms",
        &[
            WIRED,
            "each_limit_that_is_passed_is_named_with_what_there_is",
            "the_slowest_hundredth_of_the_last_thousand_counts",
        ],
    ),
    ("memory.scaling.min_cache_hit_rate", &[WIRED, "each_limit_that_is_passed_is_named_with_what_there_is"]),
    ("memory.scaling.migration_backend", &["a_limit_that_is_passed_is_told_of"]),
    ("memory.embedding_config.cache_hit_target", &[WIRED, "a_cache_that_misses_its_target_is_told_of"]),
    ("api_optimization.cache_agent_list", &["the_list_of_agents_is_kept_as_the_file_says"]),
    ("api_optimization.cache_ttl", &["the_list_of_agents_is_kept_as_the_file_says"]),
    (
        "runtime.cpu_optimization.high_priority_threads",
        &["threads_of_a_class_are_served_first_or_it_is_said_why_not"],
    ),
    ("runtime.cpu_optimization.enable_cpu_affinity", &["threads_are_kept_on_a_core_where_the_file_says_so"]),
    (
        "memory_allocation.agent_memory.conversation_pool",
        &["the_room_of_conversations_that_are_not_kept_any_more_is_used_again"],
    ),
    (
        "memory_allocation.agent_memory.pool_size",
        &[
            "a_buffer_is_used_again_when_its_answer_is_gone",
            "the_room_of_conversations_that_are_not_kept_any_more_is_used_again",
            "answers_are_written_into_buffers_of_others_where_the_file_says_so",
        ],
    ),
    (
        "memory_allocation.agent_memory.response_pool",
        &["answers_are_written_into_buffers_of_others_where_the_file_says_so"],
    ),
    ("memory_allocation.allocator", &["the_report_says_which_allocator_the_program_has"]),
    ("http_server.response_buffer_size", &["a_slow_client_is_sent_no_more_ahead_than_the_file_says"]),
    (
        "advanced_memory_tuning.embedding_advanced.prefetch_batches",
        &[WIRED, "as_many_batches_are_cut_ahead_of_the_model_as_it_is_told"],
    ),
    (
        "advanced_memory_tuning.embedding_advanced.model_precision",
        &[
            WIRED,
            "every_length_is_near_what_32_bits_give_on_every_set",
            "a_precision_is_refused_where_nobody_computes_with_it",
        ],
    ),
    (
        "memory.embedding_config.precompute_common",
        &[WIRED, "queries_that_were_asked_before_a_start_are_known_after_it"],
    ),
    ("memory.cleanup.interval", &[WIRED, "what_is_above_a_limit_goes_by_itself"]),
    ("memory.cleanup.entity_limit", &["what_is_above_a_limit_goes_by_itself"]),
    ("memory.cleanup.relation_limit", &[WIRED, "relations_above_the_limit_go_and_can_be_taken_back"]),
    ("memory.cleanup.batch_size", &[WIRED, "a_sweep_ends_between_two_steps_when_it_is_told_to"]),
    ("memory.cleanup.orphan_cleanup", &[WIRED, "relations_that_lack_an_end_go_where_that_is_asked_for"]),
    (
        "advanced_memory_tuning.cleanup_advanced.cleanup_strategy",
        &[WIRED, "what_goes_first_is_what_the_strategy_says"],
    ),
    (
        "advanced_memory_tuning.cleanup_advanced.cleanup_thread_count",
        &[WIRED, "relations_that_lack_an_end_go_where_that_is_asked_for"],
    ),
    ("memory.scaling.auto_migrate_enabled", &["what_only_one_value_can_be_is_refused_at_the_start"]),
];

/// Keys that change nothing, as the program says itself.
const WITHOUT_EFFECT: &[&str] = &[
    "memory_allocation.sqlite_memory.page_cache_allocator",
    "memory_allocation.sqlite_memory.temp_allocator",
];

/// The names of all tests in a folder.
fn tests_below(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some(rest) = line.strip_prefix("async fn ").or(line.strip_prefix("fn "))
                    && std::mem::take(&mut is_test)
                {
                    found.insert(rest.split(['(', '<']).next().unwrap().to_owned());
                }
            }
        }
    }
}

#[test]
fn each_key_has_tests_that_show_its_effect_or_says_that_it_has_none() {
    let keys: BTreeSet<String> =
        known_keys().iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    let shown = SHOWN_BY.iter().map(|(key, _)| *key);
    for key in shown.chain(WITHOUT_EFFECT.iter().copied()) {
        assert!(keys.contains(key), "{key} is no key");
        *places.entry(key).or_default() += 1;
    }
    let of_none: Vec<&String> = keys.iter().filter(|key| !places.contains_key(key.as_str())).collect();
    assert_eq!(of_none, Vec::<&String>::new(), "nothing shows what they do");
    let of_several: Vec<_> = places.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(of_several, Vec::new(), "more than one list has them");
}

#[test]
fn the_tests_that_the_table_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for folder in ["src", "events", "projections", "tools", "tests"] {
        tests_below(&root.join(folder), &mut found);
    }
    for (key, tests) in SHOWN_BY {
        assert!(!tests.is_empty() && *tests != [WIRED], "{key}: nothing shows its effect");
        for test in *tests {
            assert!(found.contains(*test), "{key}: there is no test {test}");
        }
    }
}

#[test]
fn the_program_says_of_the_same_keys_that_they_have_no_effect() {
    let loaded = load(&Sources::default()).unwrap();
    let Ok(Explained::Section { keys, .. }) = explain(&loaded, "") else { unreachable!("all keys") };
    let said: BTreeSet<&str> =
        keys.iter().filter(|key| key.without_effect.is_some()).map(|key| key.key).collect();
    // They have one beside other values than the usual ones.
    let now = [
        "advanced_memory_tuning.cleanup_advanced.cleanup_strategy",
        "advanced_memory_tuning.sqlite_advanced.vacuum_strategy",
        "conversation_processing.response_cache_enabled",
        "http_server.header_buffer_size",
        "llm.cache_entries",
        "llm.cache_size",
        "log.flush_interval",
    ];
    let listed: BTreeSet<&str> = WITHOUT_EFFECT.iter().copied().chain(now).collect();
    assert_eq!(said, listed);
}
